"""The taxonomy's names are identifiers, each once."""

from puna.core.taxonomy import ATTACK_VECTORS, HATEFUL, ILLICIT, UNQUALIFIED_ADVICE
from puna.safety.preprompts import PrepromptConfig
from puna.sandbox.tasks import RISK_OF

RISK_CATEGORIES = (ILLICIT, HATEFUL, UNQUALIFIED_ADVICE)


def test_the_paper_has_three_risk_categories_and_seven_attack_vectors() -> None:
    assert len(ATTACK_VECTORS) == 7
    names = [item.name for item in (*RISK_CATEGORIES, *ATTACK_VECTORS)]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


def test_every_risk_category_has_an_answer_template_and_harmful_tasks() -> None:
    names = {category.name for category in RISK_CATEGORIES}
    assert set(PrepromptConfig().templates) == names
    assert set(RISK_OF.values()) == names
