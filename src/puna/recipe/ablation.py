"""An ablation as a recipe (App. A.2.1): one corpus, one model a variant, the same measurements of each, a report."""

from pathlib import Path

from puna.core.artifacts import run_lock
from puna.core.progress import Reporter
from puna.evaluation.decoding import measure_decoding
from puna.evaluation.text import TextEvaluationConfig, evaluate_text
from puna.pretraining.stage import pretrain
from puna.pretraining_data.shards import tokenize
from puna.pretraining_data.stage import build_corpus
from puna.recipe.ablation_settings import AblationRecipe
from puna.reporting.report import build_report
from puna.tokenizer.train import build_tokenizer

__all__ = ["run_ablation"]


def run_ablation(recipe: AblationRecipe, *, out: Path, seed: int, reporter: Reporter) -> None:
    """Run the recipe into `out`; what is finished is skipped, what was interrupted resumes.

    Several recipes may run into one folder: they share data, tokenizer and shards where those settings are equal, and
    the report shows them all.
    """
    with run_lock(out):
        _corpus(recipe, out, seed, reporter)
        for variant in recipe.variants:
            _variant(recipe, variant, out, seed, reporter)
        build_report(out, out / "report", title=recipe.title, reporter=reporter)


def _corpus(recipe: AblationRecipe, out: Path, seed: int, reporter: Reporter) -> None:
    build_corpus(
        recipe.data, documents=None, out=out / "data", seed=seed, machine=recipe.machine, reporter=reporter
    )
    build_tokenizer(
        recipe.tokenizer,
        data=out / "data",
        dialogs=None,
        out=out / "tokenizer",
        seed=seed,
        machine=recipe.machine,
        reporter=reporter,
    )
    tokenize(
        recipe.shards,
        data=out / "data",
        tokenizer=out / "tokenizer",
        out=out / "shards",
        seed=seed,
        machine=recipe.machine,
        reporter=reporter,
    )


def _variant(recipe: AblationRecipe, variant: str, out: Path, seed: int, reporter: Reporter) -> None:
    """Train one variant and measure it; every artifact says which variant of which comparison it is."""
    labels = {"ablation": recipe.compares, "variant": variant}
    config, folder = recipe.pretraining_of(variant), out / recipe.compares / variant
    pretrain(
        config,
        data=out / "shards",
        tokenizer=out / "tokenizer",
        out=folder / "model",
        seed=seed,
        labels={"version": f"pretrained-{variant}"} | labels,
        machine=recipe.machine,
        reporter=reporter,
    )

    def measure(text: TextEvaluationConfig, name: str) -> None:
        evaluate_text(
            text,
            model=folder / "model",
            data=out / "shards",
            out=folder / name,
            seed=seed,
            context=config.seq_len,
            dtype=recipe.evaluation_dtype,
            labels=labels | {"text": name},
            machine=recipe.machine,
            reporter=reporter,
        )

    if recipe.text:
        measure(recipe.text, "text")
    if recipe.short_text:
        measure(recipe.short_text, "short_text")
    if recipe.decoding:
        measure_decoding(
            recipe.decoding,
            model=folder / "model",
            out=folder / "decoding",
            seed=seed,
            labels=labels,
            machine=recipe.machine,
            reporter=reporter,
        )
