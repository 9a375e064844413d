"""What to say when PPO's numbers look wrong: the likely causes, with the numbers that show them."""

from collections.abc import Mapping

__all__ = ["diagnose"]

NEGATIVE_KL_NATS = -0.5
"""A mean per response below this is no sampling noise of an honest estimator."""
EXPLODING_KL_NATS = 50.0
"""The policy has left its start so far that the reward models judge text they never saw."""
DRIFT_NATS = 0.02
"""Sampler and trainer agree to rounding: this allows for bf16."""
LOW_EOS_RATE = 0.5
HIGH_CLIP_FRACTION = 0.3


def diagnose(metrics: Mapping[str, float]) -> tuple[str, ...]:
    """Messages for one iteration's metrics; empty when nothing is suspicious."""
    found = []
    drift, eos_rate = metrics["logprob_drift"], metrics["eos_rate"]
    if metrics["kl"] < NEGATIVE_KL_NATS:
        found.append(
            f"KL is {metrics['kl']:.2f} nats a response, which an on-policy estimate is not: sampled with another "
            f"temperature or top-p than 1, or by other weights (log-prob drift {drift:.2g} nats), or scored with a "
            f"missing eos (eos rate {eos_rate:.0%})"
        )
    if metrics["kl"] > EXPLODING_KL_NATS:
        found.append(
            f"KL is {metrics['kl']:.0f} nats a response and the reward is likely being gamed: raise reward.kl_coef, "
            f"lower policy_optimizer.peak_lr, or stop earlier (eos rate {eos_rate:.0%})"
        )
    if drift > DRIFT_NATS:
        found.append(
            f"sampler and trainer disagree by {drift:.2g} nats a token on average: different weights or precision"
        )
    if eos_rate < LOW_EOS_RATE:
        found.append(
            f"only {eos_rate:.0%} of the responses end by eos: raise max_new_tokens or reward.missing_eos_penalty"
        )
    if metrics["clip_fraction"] > HIGH_CLIP_FRACTION:
        found.append(
            f"{metrics['clip_fraction']:.0%} of the tokens are clipped: lower policy_optimizer.peak_lr"
        )
    return tuple(found)
