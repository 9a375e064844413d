"""The report's sections, one file a theme; each is a function from a run folder to a section."""

from puna.reporting.sections.order import ABLATION_SECTIONS, SECTIONS, sections_of

__all__ = ["ABLATION_SECTIONS", "SECTIONS", "sections_of"]
