"""Time of a run whose stages overlap, follow each other, or were made on different days."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.reporting.sections.costs import busy_seconds

INTERVALS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=8)


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([], 0.0),
        ([(0.0, 5.5), (10.0, 4.0)], 9.5),  # one after the other, with a pause
        ([(0.0, 10.0), (0.0, 4.0)], 10.0),  # side by side
        ([(0.0, 10.0), (2.0, 3.0), (6.0, 8.0)], 14.0),  # one inside, one reaching out
        ([(28_800.0, 1.0), (0.0, 2.0)], 3.0),  # in any order, hours apart
    ],
)
def test_time_counts_once(stages: list[tuple[float, float]], expected: float) -> None:
    assert busy_seconds(stages) == pytest.approx(expected)


@given(INTERVALS)
def test_it_is_the_number_of_seconds_that_some_stage_covers(stages: list[tuple[int, int]]) -> None:
    covered = {second for start, length in stages for second in range(start, start + length)}
    assert busy_seconds([(float(start), float(length)) for start, length in stages]) == len(covered)
