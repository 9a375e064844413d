"""Pretraining (§2.2) as a stage: token shards and a tokenizer in, a base model out; on one process or many."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from puna.core.artifacts import StageContext
from puna.core.seeding import derive_seed
from puna.core.stage import Aside, Metrics, stage
from puna.model.checkpoint import save_model
from puna.model.config import ModelConfig
from puna.model.generation_config import GenerationConfig
from puna.model.transformer import Transformer
from puna.pretraining.config import PretrainingConfig
from puna.pretraining.continuation import Request, check_continuation, read_changes, write_request
from puna.pretraining.inputs import check_inputs
from puna.pretraining.task import PretrainingTask
from puna.tokenizer.tokenizer import Tokenizer
from puna.training.checkpoints import Safeguards
from puna.training.checkpoints.folders import keep_permanent, saved_states
from puna.training.hooks import EvaluationHook
from puna.training.loop import run
from puna.training.parallel import SINGLE, Ranks, TorchrunRanks, make_sharded

__all__ = ["pretrain"]


@stage("model", labels={"version": "pretrained"}, keeps_state=True)
def pretrain(
    config: PretrainingConfig,
    context: StageContext,
    *,
    data: Path,
    tokenizer: Path,
    ranks: Aside[Ranks] = SINGLE,
    hooks: Aside[Sequence[EvaluationHook]] = (),
    safeguards: Aside[Safeguards | None] = None,
    accepts_changes: Aside[bool] = False,
) -> Metrics:
    """Train a model from random weights on token shards (§2.2).

    Args:
        data: Artifact with shards/index.json; format in training/token_shards.py.
        tokenizer: The tokenizer the shards were made with; it is copied beside the model.
        ranks: The processes that train together; on more than one, call it through `run_together`.
        hooks: Evaluation suites to run on the way; they do not change the model, so a finished one is kept whatever
            they are.
        safeguards: How training states are kept, and when silence is a stall.
        accepts_changes: Continue an interrupted run although settings other than the architecture differ.
    Returns:
        train_loss (nats per token), validation (loss and perplexity per source), steps, tokens and n_parameters.
    Raises:
        ConfigError: an interrupted run into this folder had other settings; its states are kept.
    """
    vocabulary = Tokenizer.load(tokenizer)
    vocabulary.check_can_be_saved()
    sizes, loop = config.model_config_for(vocabulary.vocab_size), config.loop_for()
    if isinstance(ranks, TorchrunRanks):
        ranks.check(sizes, loop)
    check_inputs(data, tokenizer, vocabulary)
    if ranks.is_writer:
        request = Request.of(config, sizes, {"data": data, "tokenizer": tokenizer}, context.seed)
        _compare_with_interrupted_run(request, context, accepts_changes=accepts_changes)

    model = _initial_model(config, sizes, context, ranks)
    task = PretrainingTask(model, config, data=data, bos_id=vocabulary.bos_id, seed=context.seed)
    safeguards = safeguards or Safeguards()
    metrics = run(
        task, loop, context, description="pretraining", ranks=ranks, safeguards=safeguards, hooks=hooks
    )

    generation = GenerationConfig(bos_id=vocabulary.bos_id, eos_ids=(vocabulary.eos_id,))
    save_model(model, context.folder, generation=generation, is_writer=ranks.is_writer)
    if ranks.is_writer:
        vocabulary.save(context.folder, max_seq_len=sizes.max_seq_len)
        beside = context.out.with_name(f"{context.out.name}.states")
        keep_permanent(context.state, beside, safeguards.permanent_every_steps)
        metrics |= _changed_settings(context)
    if isinstance(ranks, TorchrunRanks):
        metrics |= {"world_size": ranks.size, "layout": str(ranks.layout)}
    return metrics | {
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "flops_per_token": task.flops_per_token,
    }


def _compare_with_interrupted_run(request: Request, context: StageContext, *, accepts_changes: bool) -> None:
    """Refuse states of other settings, say which changes were accepted, and write down what is asked for now."""
    changes = check_continuation(context.state.parent, request, accepts_changes=accepts_changes)
    for change in changes:
        context.reporter.log(f"setting changed {change}")
    write_request(context.state, request, changes)


def _initial_model(
    config: PretrainingConfig, sizes: ModelConfig, context: StageContext, ranks: Ranks
) -> Transformer:
    """Random weights by the seed: the same on one process and cut into pieces on many."""
    seed = derive_seed(context.seed, "weights")
    if not isinstance(ranks, TorchrunRanks):
        return Transformer(sizes, seed=seed).to(context.device)
    dtype = torch.float32 if config.loop.dtype == "float32" else torch.bfloat16
    is_blank = ranks.gather(bool(saved_states(context.state)))[0]
    return make_sharded(sizes, ranks, seed=seed, compute_dtype=dtype, is_blank=is_blank)


def _changed_settings(context: StageContext) -> dict[str, Any]:
    changed = read_changes(context.state)
    return {"changed_settings": changed} if changed else {}
