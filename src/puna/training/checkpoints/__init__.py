"""Training states on disk: sharded, written beside the training, checked by sha256, the newest whole one counts."""

from puna.training.checkpoints.checkpointer import Checkpointer
from puna.training.checkpoints.safeguards import Safeguards
from puna.training.checkpoints.state import ResumedState

__all__ = ["Checkpointer", "ResumedState", "Safeguards"]
