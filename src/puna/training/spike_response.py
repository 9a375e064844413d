"""What is done about a loss spike: recording it, leaving its update out, or going back to the last training state."""

import math
from dataclasses import asdict

from puna.core.errors import NumericsError
from puna.training.journal import Journal
from puna.training.run_state import RunState
from puna.training.spikes import DIVERGED_UPDATES, Spike, SpikeConfig

__all__ = ["judge", "record", "roll_back"]


def judge(state: RunState, loss: float, step: int, *, config: SpikeConfig) -> Spike | None:
    """Whether the loss of an update, in nats per target, is a spike; an update to be left out always is one.

    A divergence shows one update late: the state before its first loss holds the weights that gave it.

    Raises:
        NumericsError: the loss diverges; the states since it began are set aside.
    """
    if step + 1 in state.left_out:
        return Spike(loss, state.watch.mean, math.sqrt(state.watch.variance))
    try:
        return state.watch.spike(loss, config)
    except NumericsError:
        state.checkpoints.distrust(step + 1 - DIVERGED_UPDATES)
        raise


def roll_back(
    state: RunState, n_done: int, spike: Spike, *, config: SpikeConfig, journal: Journal
) -> int | None:
    """Go back to the last training state; the batches up to this one are left out on the way.

    Returns:
        The update it went back to; None where there is no state yet, and only this update is left out.
    Raises:
        NumericsError: there were as many rollbacks as are allowed.
    """
    first_left_out = max(1, n_done - config.n_skipped_batches + 1)
    left_out = [*state.left_out, *range(first_left_out, n_done + 1)]
    n_rollbacks = state.n_rollbacks + 1
    if n_rollbacks > config.max_rollbacks:
        raise NumericsError(
            where=f"update {n_done}",
            expected=f"at most {config.max_rollbacks} rollbacks",
            got=f"another loss spike of {spike.loss:.4g} nats where {spike.expected:.4g} is expected",
            fix="The last training state is kept. Lower peak_lr, or inspect the data.",
        )
    before = state.load()
    if before is None:
        return None
    state.left_out, state.n_rollbacks = sorted({*state.left_out, *left_out}), n_rollbacks
    journal.tell(
        f"{_headline(n_done, spike)}; back to update {before}, leaving out {len(left_out)} batches on the way"
    )
    journal.forget_after(before)
    return before


def record(n_done: int, spike: Spike, *, config: SpikeConfig, journal: Journal) -> None:
    """One line of metrics and one message."""
    journal.write(n_done, "spikes", **asdict(spike), action=config.action)
    done = "recorded" if config.action == "none" else "this update is left out"
    journal.tell(f"{_headline(n_done, spike)}; {done}")


def _headline(n_done: int, spike: Spike) -> str:
    return f"loss spike at update {n_done}: {spike.loss:.4g} nats where {spike.expected:.4g} is expected"
