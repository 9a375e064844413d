"""Table 27."""

from puna.core.records import RATINGS
from puna.reward_modeling.margins import margins


def test_margins_are_table_27() -> None:
    assert margins(RATINGS, "large").tolist() == [3, 2, 1, 0]
    assert (3 * margins(RATINGS, "small")).round().tolist() == [3, 2, 1, 0]
    assert margins(RATINGS, "none").tolist() == [0, 0, 0, 0]
