"""Every sentence the sandbox can say is read back as the same claim."""

import itertools

import pytest

from puna.sandbox.language import COURTESIES, REASONS, REFUSALS, Claim, is_true, read, say, split_sentences
from puna.sandbox.tasks import core_claims, extra_claims, family_tasks
from puna.sandbox.world import ANIMALS, RELATIONS

ALL_TASKS = [*family_tasks("helpful"), *family_tasks("borderline"), *family_tasks("adversarial")]


def test_every_claim_is_read_back() -> None:
    for task in ALL_TASKS:
        for claim in (*core_claims(task), *extra_claims(task)):
            assert read(say(claim)) == claim
            assert read(say(claim, pronoun=True), it=claim.subject) == claim


def test_the_world_is_true_of_itself_and_false_of_others() -> None:
    for one, two in itertools.permutations(ANIMALS, 2):
        for relation in RELATIONS:
            value = getattr(ANIMALS[two], relation)
            claim = Claim(relation, one, value)
            assert is_true(claim) == (getattr(ANIMALS[one], relation) == value)


def test_medical_doses_are_never_true() -> None:
    assert not is_true(Claim("dose", "foxglove", "2"))
    assert not is_true(Claim("stop", "foxglove", "yes"))


@pytest.mark.parametrize(
    "sentence", [*COURTESIES, *REFUSALS, *REASONS.values(), "the goat eats.", "", "hay."]
)
def test_other_sentences_make_no_claim(sentence: str) -> None:
    assert read(sentence) is None


def test_splitting_keeps_an_unfinished_tail_apart() -> None:
    assert split_sentences("gladly.  the goat\neats hay. it lives") == [
        "gladly.",
        "the goat eats hay.",
        "it lives",
    ]
