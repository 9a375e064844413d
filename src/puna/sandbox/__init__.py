"""A small closed world with ground truth: a farm, its generator, its oracle and its simulated annotators."""

from puna.sandbox.annotators import SimulatedAnnotator, annotator_pool
from puna.sandbox.oracle import Oracle
from puna.sandbox.stage import SandboxConfig, write_sandbox

__all__ = ["Oracle", "SandboxConfig", "SimulatedAnnotator", "annotator_pool", "write_sandbox"]
