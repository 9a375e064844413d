"""AdamW as Llama 2 sets it (§2.2), and the clipping that turns summed gradients into a safe mean."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from puna.core.config import Settings

__all__ = ["OptimizerConfig", "average_and_clip_gradients", "make_optimizer", "set_lr"]


class OptimizerConfig(Settings):
    """AdamW with decoupled decay; the defaults are §2.2's for the 7B and 13B models."""

    peak_lr: float = Field(default=3e-4, gt=0)
    """Highest learning rate (Table 1; 1.5e-4 for 34B and 70B)."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the gradient's running mean (§2.2)."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Decay of the squared gradient's running mean (§2.2)."""
    eps: float = Field(default=1e-5, gt=0)
    """Added to the denominator (§2.2)."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Share of each weight taken away per unit of learning rate (§2.2)."""
    decay_norms: bool = False
    """Decay normalization gains and other vectors too. The paper does not say: exempting them is our choice."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients longer than this, over all parameters together, are scaled down to it (§2.2)."""


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of a model, in one fused kernel."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in trained if p.ndim >= 2 or config.decay_norms]
    exempt = [p for p in trained if p.ndim < 2 and not config.decay_norms]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.peak_lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use this learning rate for the next update."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def average_and_clip_gradients(
    parameters: Iterable[nn.Parameter], *, n_targets: int, max_norm: float
) -> Float[Tensor, ""]:
    """Divide summed gradients by the number of targets, then clip them, in one pass over memory.

    Summing over micro-batches first and dividing once by all their targets weighs every token equally,
    however the batch was cut.

    Returns:
        Norm of the mean gradient before clipping, on the gradients' device: reading it is left to the caller.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True) / n_targets
    scale = torch.clamp(max_norm / (norm + 1e-6), max=1.0) / n_targets
    torch._foreach_mul_(gradients, scale)
    return norm
