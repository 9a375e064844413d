"""Collection of preferences: who is compared with whom, what is dropped, and that all of it is recorded."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import ValidationError

from puna.core.artifacts import read_manifest
from puna.core.errors import ConfigError, DataError
from puna.core.progress import quiet
from puna.core.records import Comparison, Message, Prompt, Side, read_records, write_records
from puna.human_feedback import PreferencesConfig, collect_preferences
from puna.tokenizer import Tokenizer

N_PROMPTS = 40
CONFIG = PreferencesConfig(max_new_tokens=12, held_out_fraction=0.3, double_annotated_fraction=0.5)


@dataclass(frozen=True)
class LongerIsBetter:
    """Prefers the longer response; leaves out pairs whose prompt says so."""

    name: str = "simulated-length"

    def compare(self, prompt: Prompt, left: str, right: str, *, seed: int) -> Comparison | None:
        if prompt.meta.get("exclude"):
            return None
        chosen, rejected = (left, right) if len(left) >= len(right) else (right, left)
        labels = (True, False) if prompt.guideline == "safety" else (None, None)
        return Comparison(
            id=str(seed),
            prompt=prompt.messages,
            chosen=Side(response=chosen, is_safe=labels[0]),
            rejected=Side(response=rejected, is_safe=labels[1]),
            safety="chosen_safe_rejected_unsafe" if prompt.guideline == "safety" else None,
            rating="slightly_better",
            guideline=prompt.guideline,
            annotator=self.name,
        )


def write_prompts(path: Path, *, n: int = N_PROMPTS, n_excluded: int = 0, n_long: int = 0) -> Path:
    texts = [f"how many legs has cow {i}?" for i in range(n)] + ["cow " * 100] * n_long
    prompts = [
        Prompt(
            id=f"p{i}",
            messages=(Message(role="user", content=text),),
            guideline="safety" if i % 2 else "helpfulness",
            meta={"exclude": i < n_excluded},
        )
        for i, text in enumerate(texts)
    ]
    write_records(path, prompts)
    return path


def collect(
    out: Path, models: list[Path], prompts: Path, config: PreferencesConfig = CONFIG, *, seed: int = 0
):
    annotators = [LongerIsBetter(), LongerIsBetter("simulated-length-2")]
    collect_preferences(
        config, models=models, prompts=prompts, annotators=annotators, out=out, seed=seed, reporter=quiet()
    )
    return read_manifest(out).metrics, {
        name: list(read_records(out / f"{name}.jsonl", Comparison)) for name in ("train", "test")
    }


def test_two_models_answer_one_side_each(tmp_path: Path, variants: list[Path]) -> None:
    metrics, found = collect(
        tmp_path / "out", variants, write_prompts(tmp_path / "p.jsonl", n_excluded=5, n_long=2)
    )
    pairs = found["train"] + found["test"]
    tokenizer = Tokenizer.load(variants[0])
    assert {pair.origin for pair in pairs} == {"own"}
    assert metrics["prompts_too_long"] == 2
    assert metrics["excluded"] == 5
    assert len(pairs) == metrics["comparisons"] == N_PROMPTS - 5 - metrics["identical"]
    fingerprints = sorted(read_manifest(model).fingerprint for model in variants)
    shown_first = Counter()
    for pair in pairs:
        sides = (pair.chosen, pair.rejected)
        assert sorted(side.provenance.model for side in sides) == fingerprints
        assert {side.shown_on for side in sides} == {"left", "right"}
        labels = (True, False) if pair.guideline == "safety" else (None, None)
        assert tuple(side.is_safe for side in sides) == labels
        for side in sides:
            assert tokenizer.decode(side.token_ids).strip() == side.response
            assert (side.token_ids[-1] == tokenizer.eos_id) == (side.finish_reason == "eos")
            assert len(side.token_ids) == CONFIG.max_new_tokens or side.finish_reason == "eos"
        assert len(pair.chosen.response) >= len(pair.rejected.response)
        assert pair.chosen.response != pair.rejected.response
        assert {side.provenance.temperature for side in sides} <= set(CONFIG.temperatures)
        left = next(side for side in sides if side.shown_on == "left")
        shown_first[left.provenance.model] += 1
    # A model that is never on the left has no entry. False alarm under 1e-4 for fair coins.
    assert min(shown_first[name] for name in fingerprints) > len(pairs) / 5
    assert metrics["agreement_n"] > 5
    assert metrics["agreement_ac2"] == 1


def test_one_model_answers_at_two_temperatures(tmp_path: Path, variants: list[Path]) -> None:
    _, found = collect(tmp_path / "out", variants[:1], write_prompts(tmp_path / "p.jsonl"))
    shown_first: Counter[float] = Counter()
    for pair in found["train"] + found["test"]:
        sides = (pair.chosen, pair.rejected)
        assert sorted(side.provenance.temperature for side in sides) == [0.8, 1.1]
        left = next(side for side in sides if side.shown_on == "left")
        shown_first[left.provenance.temperature] += 1
    assert min(shown_first[0.8], shown_first[1.1]) > shown_first.total() / 5  # false alarm under 1e-4


def test_all_pairs_of_a_prompt_are_on_one_side_of_the_split(tmp_path: Path, variants: list[Path]) -> None:
    """Two rounds of three pairs per prompt; the second names its batch, its prompts and its pairs otherwise."""
    sides: dict[str, set[str]] = {}
    for batch in ("one", "two"):
        prompts = list(read_records(write_prompts(tmp_path / f"{batch}.jsonl", n=12), Prompt))
        write_records(tmp_path / "p.jsonl", [p.model_copy(update={"id": f"{batch}-{p.id}"}) for p in prompts])
        config = CONFIG.model_copy(update={"batch": batch, "n_pairs_per_prompt": 3})
        _, found = collect(tmp_path / batch, variants, tmp_path / "p.jsonl", config)
        for name, pairs in found.items():
            for pair in pairs:
                sides.setdefault(pair.prompt[-1].content, set()).add(name)
    assert all(len(names) == 1 for names in sides.values())
    assert set.union(*sides.values()) == {"train", "test"}


def test_held_out_prompts_are_the_same_in_every_round(tmp_path: Path, variants: list[Path]) -> None:
    """So that pooling rounds trains on no test prompt."""
    prompts = write_prompts(tmp_path / "p.jsonl")
    _, one = collect(tmp_path / "one", variants, prompts, seed=0)
    _, two = collect(tmp_path / "two", variants[:1], prompts, seed=1)
    assert one["test"]
    tested = {pair.prompt for pair in one["test"] + two["test"]}
    trained = {pair.prompt for pair in one["train"] + two["train"]}
    assert not tested & trained


@dataclass(frozen=True)
class AsTold:
    """Chooses what the prompt's meta says under the annotator's name: left, right, or nothing to exclude the pair."""

    name: str

    def compare(self, prompt: Prompt, left: str, right: str, *, seed: int) -> Comparison | None:
        side = prompt.meta[self.name]
        if side is None:
            return None
        chosen, rejected = (left, right) if side == "left" else (right, left)
        return Comparison(
            id=str(seed),
            prompt=prompt.messages,
            chosen=Side(response=chosen),
            rejected=Side(response=rejected),
            rating="significantly_better",
            guideline=prompt.guideline,
            annotator=self.name,
        )


@pytest.mark.parametrize("swapped", [False, True])
def test_a_pair_that_one_annotator_excludes_counts_for_prevalence_only(
    tmp_path: Path, variants: list[Path], swapped: bool
) -> None:
    """Gwet's AC2 with a missing rating, worked by hand; the levels are (7, 7), (7, 0), (7, none), (none, none).

    Observed, over the two pairs with two ratings: (1 + 0) / 2. Prevalence, over the three pairs with any: of 7
    (1 + 1/2 + 1) / 3 = 5/6, of 0 1/6. The 64 ordinal weights of eight levels sum to 49, so chance is
    49 * 2 * 5/36 / 56 = 35/144, and AC2 is (1/2 - 35/144) / (1 - 35/144) = 37/109. Without the third pair: 11/43.
    """
    names = ("b", "a") if swapped else ("a", "b")
    told = [("left", "left"), ("left", "right"), ("left", None), (None, None)]
    prompts = [
        Prompt(
            id=f"p{i}",
            messages=(Message(role="user", content=f"how many legs has cow {i}?"),),
            meta=dict(zip(names, choices, strict=True)),
        )
        for i, choices in enumerate(told)
    ]
    write_records(tmp_path / "p.jsonl", prompts)
    metrics = collect_preferences(
        CONFIG.model_copy(update={"double_annotated_fraction": 1.0, "max_new_tokens": 30}),
        models=variants,
        prompts=tmp_path / "p.jsonl",
        annotators=[AsTold("a"), AsTold("b")],
        out=tmp_path / "out",
        seed=0,
        reporter=quiet(),
    ).metrics
    assert metrics["identical"] == 0
    assert metrics["agreement_n"] == 2
    assert metrics["agreement_same_side"] == 1 / 2
    assert metrics["agreement_ac2"] == pytest.approx(37 / 109)
    assert metrics["comparisons"] + metrics["excluded"] == 4


def test_same_seed_same_bytes_and_other_annotators_another_artifact(
    tmp_path: Path, variants: list[Path]
) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", n=6)
    for name in ("one", "two"):
        collect(tmp_path / name, variants, prompts)
    one, two = read_manifest(tmp_path / "one"), read_manifest(tmp_path / "two")
    assert one.files == two.files
    assert one.fingerprint == two.fingerprint
    third = collect_preferences(
        CONFIG,
        models=variants,
        prompts=prompts,
        annotators=[LongerIsBetter("simulated-other")],
        out=tmp_path / "three",
        seed=0,
        reporter=quiet(),
    )
    assert third.fingerprint != one.fingerprint
    assert third.labels == {"batch": "1"}


def test_impossible_requests_say_so(tmp_path: Path, variants: list[Path]) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", n=2)
    with pytest.raises(ConfigError, match="one or two"):
        collect(tmp_path / "out", variants * 2, prompts)
    with pytest.raises(ConfigError, match="two different ones"):
        collect(tmp_path / "out", variants[:1], prompts, PreferencesConfig(temperatures=(1.0,)))
    with pytest.raises(ValidationError, match="positive"):
        PreferencesConfig(temperatures=(0.0, 1.0))
    with pytest.raises(DataError, match="at least one pair"):
        collect(tmp_path / "out", variants, write_prompts(tmp_path / "long.jsonl", n=0, n_long=2))
    with pytest.raises(ConfigError, match="annotators"):
        collect_preferences(
            CONFIG,
            models=variants,
            prompts=prompts,
            annotators=[],
            out=tmp_path / "o",
            seed=0,
            reporter=quiet(),
        )
