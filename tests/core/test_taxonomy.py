"""The taxonomy's names are identifiers, each once."""

from puna.safety import ATTACK_VECTORS, RISK_CATEGORIES
from puna.safety.preprompts import PrepromptConfig


def test_the_paper_has_three_risk_categories_and_seven_attack_vectors() -> None:
    assert len(RISK_CATEGORIES) == 3
    assert len(ATTACK_VECTORS) == 7
    names = [item.name for item in (*RISK_CATEGORIES, *ATTACK_VECTORS)]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


def test_every_risk_category_has_an_answer_template() -> None:
    assert set(PrepromptConfig().templates) == {category.name for category in RISK_CATEGORIES}
