"""Training a reward model (§3.2.2) as a stage."""

from collections.abc import Sequence
from pathlib import Path

from puna.core.artifacts import StageContext
from puna.core.errors import ConfigError
from puna.core.records import Comparison, RewardRole, write_records
from puna.core.seeding import derive_seed
from puna.core.stage import Metrics, stage
from puna.inference.reward_models import check_tokenizer
from puna.model import ScoreModel, load_model, load_score_model, save_score_model
from puna.model.generation_config import read_generation_config
from puna.reward_modeling.accuracy import measure
from puna.reward_modeling.config import RewardModelConfig
from puna.reward_modeling.encoding import EncodedPair, encode_pairs
from puna.reward_modeling.mixture import load_comparisons, mix
from puna.reward_modeling.task import RankingTask, score_pairs
from puna.tokenizer import Tokenizer
from puna.training import ShuffledOrder, run

__all__ = ["train_reward_model"]

MAX_TEST_BATCH_SIZE = 128
"""Sequences scored at once on held-out pairs; for memory and speed only."""
HELD_OUT_SCORES = "held_out_scores.jsonl"


@stage("reward_model", labels={"role": "{role}"})
def train_reward_model(
    config: RewardModelConfig,
    context: StageContext,
    *,
    chat_model: Path,
    comparisons: Sequence[Path],
    role: RewardRole,
    previous: Path | None = None,
) -> Metrics:
    """Train the helpfulness or the safety reward model from a chat model's weights.

    Source: Llama 2 §3.2.2: initialised from the chat checkpoint, so that both know the same; next-token head
    replaced by a scalar; Eq. 2 with margins; auxiliary loss for the safety role only; one epoch.

    Args:
        chat_model: The chat model whose weights and tokenizer the reward model starts from.
        comparisons: Folders of `puna prefer import` or `simulate`, or .jsonl files of Comparison. Pairs of both
            guidelines are welcome: the role decides in which shares they are used.
        role: Which of the two reward models this is.
        previous: An earlier round's reward model to go on from, instead of the chat checkpoint. Our choice.
    Returns:
        accuracy (own guideline), accuracy_by_rating, by_test_set, unsafe_recall at 0.5, and what the loop reports.
    """
    tokenizer = Tokenizer.load(chat_model)
    tokenizer.check_can_be_saved()
    if previous:
        check_tokenizer(previous, tokenizer)
        model = load_score_model(previous, device=context.device)
    else:
        trunk = load_model(chat_model, device=context.device)
        model = ScoreModel(trunk, seed=derive_seed(context.seed, "score head", role))
    max_tokens = model.trunk.config.max_seq_len
    loaded = load_comparisons(comparisons, held_out_fraction=config.held_out_fraction)
    mixed = mix(loaded.train, role=role, own_fraction=config.own_fraction, seed=context.seed)
    train, test, counts = _encode(config, mixed, loaded.test, tokenizer, max_tokens, role)
    n_epochs = config.n_epochs if config.loop.total_steps is None else None
    order = ShuffledOrder(len(train), batch_size=config.loop.batch_size, seed=context.seed, n_epochs=n_epochs)
    loop = config.loop if order.n_steps is None else config.loop.for_steps(order.n_steps)
    task = RankingTask(
        model,
        train=train,
        test=[pair for pair in test if pair.comparison.guideline == role],
        order=order,
        micro_batch_size=loop.micro_batch_size,
        test_batch_size=MAX_TEST_BATCH_SIZE,
        margin=config.margin,
        safety_loss_weight=config.safety_loss_weight if role == "safety" else 0.0,
    )
    metrics = run(task, loop, context, description=f"{role} reward model")
    held_out = score_pairs(model.eval(), test, max_batch_size=MAX_TEST_BATCH_SIZE)
    write_records(context.folder / HELD_OUT_SCORES, held_out)
    save_score_model(model, context.folder, generation=read_generation_config(chat_model))
    tokenizer.save(context.folder, max_seq_len=max_tokens)
    return metrics | measure(held_out, role=role) | counts


def _encode(
    config: RewardModelConfig,
    train: Sequence[Comparison],
    test: Sequence[Comparison],
    tokenizer: Tokenizer,
    context_tokens: int,
    role: RewardRole,
) -> tuple[list[EncodedPair], list[EncodedPair], dict[str, float]]:
    limit = config.max_seq_len or context_tokens
    if limit > context_tokens:
        raise ConfigError(
            where="max_seq_len",
            expected=f"at most the chat model's context of {context_tokens} tokens",
            got=str(limit),
            fix="Lower max_seq_len.",
        )
    train_pairs, n_train_too_long = encode_pairs(train, tokenizer, max_seq_len=limit)
    test_pairs, n_test_too_long = encode_pairs(test, tokenizer, max_seq_len=limit)
    if not train_pairs:
        got = f"{len(train)} pairs, all longer"
        fix = "Raise max_seq_len, or take a chat model with a longer context."
        raise ConfigError(
            where="max_seq_len", expected=f"some pair of at most {limit} tokens", got=got, fix=fix
        )
    n_own = sum(pair.comparison.guideline == role for pair in train_pairs)
    counts = {
        "train_pairs": len(train_pairs),
        "own_fraction": n_own / len(train_pairs),
        "train_pairs_too_long": n_train_too_long,
        "test_pairs": len(test_pairs),
        "test_pairs_too_long": n_test_too_long,
    }
    return train_pairs, test_pairs, counts
