"""Learning-rate schedules: linear warm-up, then cosine to a fraction of the peak (§2.2) or constant (§3.2.3)."""

import math

__all__ = ["constant_lr", "cosine_lr"]


def cosine_lr(
    step: int, *, peak_lr: float, warmup_steps: int, total_steps: int, final_fraction: float = 0.1
) -> float:
    """Learning rate of one update: up in a line to the peak, down along half a cosine.

    Source: Llama 2 §2.2 (warm-up, cosine, final rate a tenth of the peak).

    Args:
        step: Which update, counted from 0. Update warmup_steps - 1 runs at the peak, the last one at the
            final rate.
    """
    n_updates = step + 1
    if n_updates <= warmup_steps:
        return peak_lr * n_updates / warmup_steps
    progress = min(1.0, (n_updates - warmup_steps) / max(1, total_steps - warmup_steps))
    fall = 0.5 * (1 + math.cos(math.pi * progress))
    return peak_lr * (final_fraction + (1 - final_fraction) * fall)


def constant_lr(step: int, *, peak_lr: float, warmup_steps: int) -> float:
    """Learning rate of one update: up in a line to the peak, then flat (PPO, §3.2.3, without warm-up)."""
    return peak_lr * min(1.0, (step + 1) / max(1, warmup_steps))
