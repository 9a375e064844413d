"""The paper's tables and figures, drawn from a run's own artifacts."""

from puna.reporting.report import ReportConfig, build_report
from puna.reporting.summary import quickstart_summary

__all__ = ["ReportConfig", "build_report", "quickstart_summary"]
