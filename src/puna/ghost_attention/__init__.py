"""Ghost Attention (§3.3): data that teaches a model to keep an instruction over many turns."""

from puna.ghost_attention.dialogs import Scenario, sampling_messages, training_dialog
from puna.ghost_attention.stage import GattConfig, build_gatt_data

__all__ = ["GattConfig", "Scenario", "build_gatt_data", "sampling_messages", "training_dialog"]
