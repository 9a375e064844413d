"""The report's sections, one file a theme; each is a function from a run folder to a section."""

from collections.abc import Callable

from puna.reporting.blocks import Section
from puna.reporting.run_folder import RunFolder
from puna.reporting.sections.costs import costs, limits
from puna.reporting.sections.curves import losses, ppo
from puna.reporting.sections.data import data_audit
from puna.reporting.sections.distillation import context_distillation
from puna.reporting.sections.examples import examples
from puna.reporting.sections.pipeline import pipeline
from puna.reporting.sections.preferences import preferences
from puna.reporting.sections.reward_models import accuracy, reward_against_k
from puna.reporting.sections.scores import before_and_after, by_version
from puna.reporting.sections.versions import constraint_kept, evolution, summary

__all__ = ["SECTIONS"]

SECTIONS: tuple[Callable[[RunFolder], Section], ...] = (
    *(summary, pipeline, evolution, constraint_kept, preferences, accuracy, reward_against_k),
    *(before_and_after, by_version, context_distillation, examples),
    *(losses, ppo, data_audit, costs, limits),
)
"""In the order of the page."""
