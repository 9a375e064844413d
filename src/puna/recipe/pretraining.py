"""A recipe for `puna pretrain`: what is learned, over which processes, and how the run is guarded and measured."""

from puna.core.config import Settings
from puna.core.machine import Machine
from puna.evaluation.text import TextHookConfig
from puna.pretraining.config import PretrainingConfig
from puna.training.checkpoints import Safeguards
from puna.training.parallel.config import ParallelConfig

__all__ = ["PretrainingRecipe"]


class PretrainingRecipe(Settings):
    """Only [pretraining] decides what the model becomes; the other sections may change at every resume."""

    title: str = "A Llama 2, pretrained"
    """For people."""
    pretraining: PretrainingConfig = PretrainingConfig()
    """Model, data, optimizer, schedule (§2.2)."""
    machine: Machine = Machine()
    """Where one process trains; under torchrun each takes a device of its own."""
    parallel: ParallelConfig = ParallelConfig()
    """The processes that torchrun starts, as axes of a mesh."""
    safeguards: Safeguards = Safeguards()
    """Training states, and when silence is a stall."""
    evaluation_hooks: TextHookConfig | None = None
    """Held-out suites on the way, on one process; None runs none."""
