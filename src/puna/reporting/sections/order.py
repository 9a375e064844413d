"""Which sections a page has, in which order: those of the whole recipe, or those of ablations."""

from collections.abc import Callable

from puna.reporting.blocks import Section
from puna.reporting.run_folder import RunFolder
from puna.reporting.sections.ablations import ablation_limits, attention, context, decoding, sizes
from puna.reporting.sections.costs import costs, limits
from puna.reporting.sections.curves import losses, ppo
from puna.reporting.sections.data import data_audit
from puna.reporting.sections.distillation import context_distillation
from puna.reporting.sections.examples import examples
from puna.reporting.sections.pipeline import pipeline
from puna.reporting.sections.preferences import preferences
from puna.reporting.sections.reward_models import accuracy, reward_against_k
from puna.reporting.sections.scores import before_and_after, by_version
from puna.reporting.sections.training_cost import training_cost
from puna.reporting.sections.versions import constraint_kept, evolution, summary

__all__ = ["ABLATION_SECTIONS", "SECTIONS", "sections_of"]

SECTIONS: tuple[Callable[[RunFolder], Section], ...] = (
    *(summary, pipeline, evolution, constraint_kept, preferences, accuracy, reward_against_k),
    *(before_and_after, by_version, context_distillation, examples),
    *(losses, ppo, data_audit, training_cost, costs, limits),
)
"""In the order of the page."""

ABLATION_SECTIONS: tuple[Callable[[RunFolder], Section], ...] = (
    *(context, attention, decoding, sizes),
    *(data_audit, training_cost, costs, ablation_limits),
)
"""Of a run that compares variants of one thing (App. A.2.1)."""


def sections_of(run: RunFolder) -> tuple[Callable[[RunFolder], Section], ...]:
    """The page that fits what the run holds."""
    is_ablation = any("ablation" in artifact.labels for artifact in run.artifacts)
    return ABLATION_SECTIONS if is_ablation else SECTIONS
