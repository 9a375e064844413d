"""Ablations end to end at toy size: variants, measurements, the paper's tables; shipped recipes keep their word."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError

from puna.cli.main import main
from puna.core.artifacts import read_manifest
from puna.core.config import Settings, changed, load_recipe
from puna.core.errors import ConfigError
from puna.core.progress import quiet
from puna.model.accounting import n_parameters
from puna.recipe import ablation
from puna.recipe.ablation import run_ablation
from puna.recipe.ablation_settings import AblationRecipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes" / "ablations").glob("*.toml"))
FOLDER = Path(__file__).parents[2] / "recipes" / "ablations"

TINY = """
title = "Tiny ablations"
compares = "{compares}"

[data]
validation_fraction = 0.2
sources = [{{ name = "python", reader = "python_stdlib", is_prose = false, max_bytes = 300_000 }}]

[tokenizer]
vocab_size = 400
max_seq_len = 64

[pretraining]
model = {{ dim = 16, n_layers = 1, n_heads = 2, n_kv_heads = 2, hidden_dim = 32, vocab_size = 400, max_seq_len = 64 }}
seq_len = 32
validation_tokens = 256

[pretraining.loop]
total_steps = 6
warmup_steps = 1
batch_size = 4
micro_batch_size = 4
log_every_steps = 2
evaluate_every_steps = 2

{variants}

[text]
n_tokens = 64
position_edges = [16, 32]
max_documents = 4
continuation_tokens = 8
max_items = 8
recall_distances = [8, 32]
passage_tokens = 8
n_passages = 6
"""
VARIANTS = {
    "context": """
[variants."32"]
seq_len = 32

[variants."64"]
seq_len = 64
loop = { batch_size = 2, micro_batch_size = 2 }

[short_text]
n_tokens = 32
position_edges = [16]
max_documents = 4
continuation_tokens = 8
max_items = 8
recall_distances = [8]
passage_tokens = 8
n_passages = 6
""",
    "attention": """
[variants.MHA]
model = { n_kv_heads = 2 }

[variants.MQA]
model = { n_kv_heads = 1, hidden_dim = 35 }

[decoding]
prompt_tokens = [8, 24]
new_tokens = 3
max_batch_size = 4
cache_bytes = 4096
""",
    "size": """
[variants.small]
model = { dim = 8, hidden_dim = 16 }

[variants.large]
model = { dim = 16, n_layers = 2 }
""",
}


def write(folder: Path, compares: str) -> Path:
    path = folder / f"{compares}.toml"
    path.write_text(TINY.format(compares=compares, variants=VARIANTS[compares]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three comparisons in one folder."""
    folder = tmp_path_factory.mktemp("ablations")
    for compares in VARIANTS:
        recipe = load_recipe(write(folder, compares), AblationRecipe)
        run_ablation(recipe, out=folder / "run", seed=0, reporter=quiet())
    return folder / "run"


def test_recipes_in_one_folder_share_their_corpus_and_report(run: Path) -> None:
    report = json.loads((run / "report" / "report.json").read_text())
    assert {"context", "attention", "decoding", "sizes", "training-cost"} <= set(report["sections"])
    models = [read_manifest(path.parent) for path in run.rglob("model/manifest.json")]
    assert len(models) == 6
    assert len({manifest.inputs["data"].fingerprint for manifest in models}) == 1


def test_the_tables_have_the_papers_shape(run: Path) -> None:
    text = (run / "report" / "report.md").read_text()
    page = (run / "report" / "index.html").read_text()
    for heading in ("Tables 16 and 17", "Table 18", "Figure 24", "Figure 5"):
        assert heading in text
    assert "| Trained with | places 1-16 | places 16-32 | places 32-64 | choice at the end |" in text
    assert "| Model | Parameters | python, perplexity | python, choice | choice, all |" in text
    assert "NarrativeQA F1" in text
    assert "| MQA, 24 tokens |" in text
    assert page.count("<svg") == 4  # three plots of losses, one of decoding


def test_a_model_reads_no_further_back_than_it_was_trained(run: Path) -> None:
    contexts = {
        name: read_manifest(run / "context" / name / "text").metrics["context"] for name in ("32", "64")
    }
    assert contexts == {"32": 32, "64": 64}
    assert read_manifest(run / "context" / "64" / "short_text").metrics["positions"].keys() == {
        "1-16",
        "16-32",
    }


def test_a_second_run_skips_everything(run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")}
    for compares in VARIANTS:
        recipe = load_recipe(write(run.parent, compares), AblationRecipe)
        run_ablation(recipe, out=run, seed=0, reporter=quiet())
    after = {path: path.stat().st_mtime_ns for path in run.rglob("manifest.json")}
    changed = {path.parent.name for path in before if before[path] != after[path]}
    assert changed <= {"report"}, "only the heading may differ between recipes"


def test_the_command_ends_in_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write(run.parent, "size")
    with pytest.raises(SystemExit) as end:
        main(["ablate", str(recipe), "--out", str(run), "--json"])
    assert end.value.code == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert Path(found["report"]).is_file()
    assert found["variants"].keys() == {"small", "large"}


@pytest.mark.parametrize("path", [p for p in RECIPES if p.stem != "text_cpu"], ids=lambda path: path.stem)
def test_shipped_recipes_load_and_share_their_corpus(path: Path) -> None:
    recipe, first = load_recipe(path, AblationRecipe), load_recipe(FOLDER / "context.toml", AblationRecipe)
    assert (recipe.data, recipe.tokenizer, recipe.shards) == (first.data, first.tokenizer, first.shards)
    for variant in recipe.variants:
        config = recipe.pretraining_of(variant)
        config.model_config_for(recipe.tokenizer.vocab_size)
        tokens = config.loop_for().n_steps * config.loop.batch_size * config.seq_len
        assert tokens == pytest.approx(recipe.pretraining.total_tokens, rel=0.01), "the same tokens for all"


def test_attention_variants_have_equal_parameters() -> None:
    recipe = load_recipe(FOLDER / "attention.toml", AblationRecipe)
    sizes = {name: recipe.pretraining_of(name).model_config_for(4096) for name in recipe.variants}
    counts = {name: n_parameters(size) for name, size in sizes.items()}
    assert max(counts.values()) / min(counts.values()) < 1.003
    assert {name: size.n_kv_heads for name, size in sizes.items()} == {"MHA": 6, "MQA": 1, "GQA": 2}


def test_context_variants_differ_in_context_only() -> None:
    recipe = load_recipe(FOLDER / "context.toml", AblationRecipe)
    short, long = (recipe.pretraining_of(name) for name in ("256", "512"))
    assert (short.model, short.loop.optimizer) == (long.model, long.loop.optimizer)
    assert short.seq_len * short.loop.batch_size == long.seq_len * long.loop.batch_size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("[variants.c]\nmodle = { dim = 8 }\n", "variants.c.modle"),
        ("[variants.c]\nloop = { batch_size = 0 }\n", "variants.c.loop.batch_size"),
        ('[variants."a/b"]\nseq_len = 16\n', "names that do for a folder"),
    ],
)
def test_a_wrong_variant_is_named(tmp_path: Path, change: str, message: str) -> None:
    path = write(tmp_path, "size")
    path.write_text(path.read_text() + change)
    with pytest.raises(ConfigError, match=message):
        load_recipe(path, AblationRecipe)


def test_one_variant_is_no_comparison() -> None:
    recipe = load_recipe(FOLDER / "sizes.toml", AblationRecipe)
    values = recipe.model_dump() | {"variants": {"only": {}}}
    with pytest.raises(ConfigError, match="at least two"):
        AblationRecipe.model_validate(values)


def test_a_variant_drops_no_setting_and_every_stage_gets_the_machine(monkeypatch) -> None:
    overrides = [
        'machine={ speed = { checkpointing = "full" }, tracking = { trackers = ["wandb"] } }',
        "pretraining.loop.optimizer={ peak_lr = 0.5, eps = 0.25 }",
        'pretraining.loop.spikes.action="skip"',
    ]
    recipe = load_recipe(FOLDER / "sizes.toml", AblationRecipe, overrides)
    machines = {}

    def recorded(name):
        return lambda *args, **given: machines.setdefault(name, set()).add(given["machine"])

    stages = ("build_corpus", "build_tokenizer", "tokenize", "pretrain", "evaluate_text", "measure_decoding")
    for name in stages:
        monkeypatch.setattr(ablation, name, recorded(name))
    monkeypatch.setattr(ablation, "build_report", lambda *args, **given: None)
    ablation._corpus(recipe, Path("runs"), 0, quiet())
    for variant in recipe.variants:
        ablation._variant(recipe, variant, Path("runs"), 0, quiet())
        config = recipe.pretraining_of(variant)
        assert config == recipe.pretraining.model_copy(update={"model": config.model})
        assert (config.loop.optimizer.eps, config.loop.spikes.action) == (0.25, "skip")
    assert machines.keys() >= {"build_corpus", "build_tokenizer", "tokenize", "pretrain"}
    assert all(given == {recipe.machine} for given in machines.values())


def test_no_settings_class_hides_a_field_from_manifests() -> None:
    """What is left out when settings are resolved is in no fingerprint, and is lost where a variant is merged."""

    def all_below(parent: type[Settings]) -> list[type[Settings]]:
        return [parent, *(below for child in parent.__subclasses__() for below in all_below(child))]

    hidden = [
        f"{settings.__name__}.{name}"
        for settings in all_below(Settings)
        for name, field in settings.model_fields.items()
        if field.exclude
    ]
    assert hidden == []


def leaves(settings: BaseModel, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every setting that is no table, by its path; read from the objects, so that nothing is left out."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name), value


def others(settings: BaseModel, path: tuple[str, ...]) -> Iterator[Any]:
    """Values of the setting's kind that it may have instead."""
    for name in path[:-1]:
        settings = getattr(settings, name)
    value, annotation = getattr(settings, path[-1]), type(settings).model_fields[path[-1]].annotation
    for kind in (annotation, *get_args(annotation)):
        if get_origin(kind) is Literal:
            yield from (choice for choice in get_args(kind) if choice != value)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, 2 * value, value / 2)
    elif isinstance(value, str):
        yield f"{value}x"
    elif value is None:
        yield from (1, 0.5, 2.0, "x", True)
    elif value == ():
        yield ("wandb",)


def table(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for name in reversed(path):
        value = {name: value}
    return value


def test_no_setting_of_the_base_is_lost() -> None:
    """Each setting of `pretraining` in turn gets another value; both variants must have it, and nothing else moves."""
    recipe = load_recipe(FOLDER / "sizes.toml", AblationRecipe)
    given = {"dim64": {"seq_len": 128}, "dim96": {}}
    changes = {path: list(others(recipe.pretraining, path)) for path, _ in leaves(recipe.pretraining)}
    tried = set()
    for path, values in changes.items():
        for value in values:
            try:
                base = changed(recipe.pretraining, table(path, value))
                asked = recipe.model_copy(update={"pretraining": base, "variants": given})
                variants = {name: dict(leaves(asked.pretraining_of(name))) for name in given}
            except (ValidationError, ConfigError):
                continue  # that value does not go together with the others
            expected = dict(leaves(base))
            assert expected[path] == value
            assert variants["dim96"] == expected
            assert variants["dim64"] == expected | {("seq_len",): 128}
            tried.add(path)
    assert len(tried) > 0.8 * len(changes), set(changes) - tried


def test_what_a_recipe_file_says_reaches_every_variant(tmp_path: Path) -> None:
    path = write(tmp_path, "context")
    spikes = '[pretraining.loop.spikes]\nwindow_steps = 77\n\n[variants."32"]'
    path.write_text(path.read_text().replace('[variants."32"]', spikes))
    recipe = load_recipe(path, AblationRecipe)
    assert [recipe.pretraining_of(name).loop.spikes.window_steps for name in ("32", "64")] == [77] * 2
    assert [recipe.pretraining_of(name).loop.batch_size for name in ("32", "64")] == [4, 2]


def test_trackers_are_the_machines() -> None:
    recipe = load_recipe(FOLDER / "sizes.toml", AblationRecipe, ['machine.tracking.trackers=["wandb"]'])
    assert recipe.machine.tracking.trackers == ("wandb",)
