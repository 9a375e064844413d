"""The ways to spread a model over GPUs that the trainer knows: copies, FSDP, hybrid, tensor parallelism x FSDP."""

from dataclasses import dataclass

from puna.core.errors import ConfigError
from puna.model.config import ModelConfig
from puna.training.parallel.config import Layout

__all__ = ["PlannedLayout", "check_tensor_parallel", "layouts_for"]

_TENSOR_PARALLEL = (2, 4, 8)
"""Degrees that are tried where none is asked for."""


@dataclass(frozen=True, slots=True)
class PlannedLayout(Layout):
    """GPUs along the trainer's axes; their product is their number."""

    @property
    def n_gpus(self) -> int:
        """All of them."""
        return self.dp_replicate * self.dp_shard * self.tp

    @property
    def name(self) -> str:
        """For people."""
        if self.n_gpus == 1:
            return "one GPU"
        if self.dp_shard == 1 and self.tp == 1:
            return f"copies (DDP) {self.dp_replicate}"
        parts = [f"TP {self.tp}"] if self.tp > 1 else []
        if self.dp_shard > 1:
            parts.append(f"FSDP {self.dp_shard}")
        if self.dp_replicate > 1:
            parts.append(f"{self.dp_replicate} copies")
        return " x ".join(parts)


def layouts_for(
    config: ModelConfig, n_gpus: int, *, gpus_per_node: int, tp: int | None
) -> list[PlannedLayout]:
    """The layouts of so many GPUs, the least communication first.

    Args:
        tp: Only this degree of tensor parallelism; None tries the usual ones that divide the model.
    Raises:
        ConfigError: tp does not divide the model, the node or the GPUs.
    """
    if tp is not None:
        check_tensor_parallel(config, tp, n_gpus=n_gpus, gpus_per_node=gpus_per_node)
        degrees = [tp]
    else:
        degrees = [1, *(t for t in _TENSOR_PARALLEL if _why_not(config, t, n_gpus, gpus_per_node) is None)]
    layouts = []
    for degree in degrees:
        n_data, per_node = n_gpus // degree, gpus_per_node // degree
        if degree == 1:
            layouts.append(PlannedLayout(dp_replicate=n_data))
        if n_data > 1 or degree > 1:
            layouts.append(PlannedLayout(dp_shard=n_data, tp=degree))
        if n_data > per_node > 1 and n_data % per_node == 0:
            layouts.append(PlannedLayout(dp_replicate=n_data // per_node, dp_shard=per_node, tp=degree))
    return layouts


def check_tensor_parallel(config: ModelConfig, tp: int, *, n_gpus: int, gpus_per_node: int) -> None:
    """Refuse a degree that leaves parts of unequal size, or that leaves the node.

    Raises:
        ConfigError: names the size that tp does not divide.
    """
    name = _why_not(config, tp, n_gpus, gpus_per_node)
    if name is not None:
        few = (
            "Grouped-query attention has few key-value heads, and each needs a whole GPU."
            if "kv" in name
            else ""
        )
        raise ConfigError(
            where="tp", expected=f"a divisor of {name}", got=str(tp), fix=f"{few} Choose a divisor.".strip()
        )


def _why_not(config: ModelConfig, tp: int, n_gpus: int, gpus_per_node: int) -> str | None:
    sizes = {
        "the model's n_kv_heads": config.n_kv_heads,
        "the model's n_heads": config.n_heads,
        "the model's hidden_dim": config.hidden_dim,
        "the model's vocab_size": config.vocab_size,
        "the number of GPUs": n_gpus,
        "the GPUs of a node": gpus_per_node,
    }
    wrong = [f"{name} = {size}" for name, size in sizes.items() if size % tp]
    return wrong[0] if wrong else None
