"""What a reward model trains on (§3.2.2) and that no test prompt is among it."""

from pathlib import Path

import pytest

from puna.core.errors import DataError
from puna.core.records import write_records
from puna.reward_modeling.mixture import load_comparisons, mix
from ranked_pairs import comparison

POOL = [comparison(i) for i in range(90)] + [comparison(i, guideline="safety") for i in range(45)]


def n_by_guideline(**options: object) -> tuple[int, int]:
    found = mix(POOL, seed=0, **{"own_fraction": None, **options})
    assert len({pair.id for pair in found}) == len(found)
    n_helpful = sum(pair.guideline == "helpfulness" for pair in found)
    return n_helpful, len(found) - n_helpful


def test_helpfulness_takes_as_much_from_elsewhere_as_there_is() -> None:
    assert n_by_guideline(role="helpfulness") == (90, 45)


def test_safety_takes_a_tenth_from_helpfulness() -> None:
    assert n_by_guideline(role="safety") == (5, 45)


def test_the_share_can_be_set() -> None:
    assert n_by_guideline(role="safety", own_fraction=0.5) == (45, 45)
    assert n_by_guideline(role="helpfulness", own_fraction=1.0) == (90, 0)


def test_the_sample_is_seeded() -> None:
    picks = [
        {p.id for p in mix(POOL, role="safety", own_fraction=None, seed=seed) if p.guideline == "helpfulness"}
        for seed in (0, 0, 1)
    ]
    assert picks[0] == picks[1] != picks[2]


def test_a_role_without_pairs_is_an_error() -> None:
    with pytest.raises(DataError, match="guideline safety"):
        mix(POOL[:90], role="safety", own_fraction=None, seed=0)


def test_artifacts_come_divided_and_files_are_divided(tmp_path: Path, preferences: Path) -> None:
    """A file trains on no prompt that the artifact tests on."""
    loaded = load_comparisons([preferences], held_out_fraction=0.9)
    assert (len(loaded.train), len(loaded.test)) == (192, 64)
    plain = tmp_path / "plain.jsonl"
    write_records(plain, [comparison(i) for i in range(60, 160)])
    both = load_comparisons([preferences, plain], held_out_fraction=0.2)
    assert len(both.test) > 64
    assert not {pair.prompt for pair in both.train} & {pair.prompt for pair in both.test}


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    write_records(path, [comparison(i) for i in range(6)])
    path.write_text(path.read_text() + '{"id": 7}\n')
    with pytest.raises(DataError, match=r"plain\.jsonl, line 7"):
        load_comparisons([path], held_out_fraction=0.1)
