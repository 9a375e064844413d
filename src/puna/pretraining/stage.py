"""Pretraining (§2.2) as a stage: token shards and a tokenizer in, a base model out; on one process or many."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from puna.core.artifacts import Manifest, StageContext, run_stage
from puna.core.devices import pick_device
from puna.core.progress import Reporter
from puna.core.seeding import derive_seed
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
from puna.training.parallel.stage import run_together

__all__ = ["pretrain"]


def pretrain(
    config: PretrainingConfig,
    *,
    data: Path,
    tokenizer: Path,
    out: Path,
    seed: int,
    labels: Mapping[str, str] | None = None,
    hooks: Sequence[EvaluationHook] = (),
    reporter: Reporter | None = None,
    ranks: Ranks = SINGLE,
    safeguards: Safeguards | None = None,
    accepts_changes: bool = False,
) -> Manifest | None:
    """Train a model from random weights on token shards (§2.2).

    Args:
        data: Artifact with shards/index.json; format in training/token_shards.py.
        tokenizer: The tokenizer the shards were made with; it is copied beside the model.
        labels: For the report, such as the variant of an ablation.
        hooks: Evaluation suites to run on the way; they do not change the model, so a finished one is kept whatever
            they are.
        ranks: The processes that train together, each of which makes this call.
        accepts_changes: Go on with an interrupted run although settings other than the architecture differ.
    Returns:
        Manifest of kind "model" (None on all processes but the writer); its metrics hold train_loss (nats per token),
        validation (loss and perplexity per source), steps, tokens and n_parameters.
    """
    loaded = Tokenizer.load(tokenizer)
    loaded.check_can_be_saved()
    model = config.model_config_for(loaded.vocab_size)
    if isinstance(ranks, TorchrunRanks):
        ranks.check(model, config.loop_for())
    check_inputs(data, tokenizer, loaded)
    inputs = {"data": data, "tokenizer": tokenizer}
    safeguards = safeguards or Safeguards()
    partial = out.resolve().with_name(f".{out.resolve().name}.partial")
    request = Request.of(config, model, inputs, seed) if ranks.is_writer else None
    changes = [] if request is None else check_continuation(partial, request, accepts_changes=accepts_changes)

    def build(context: StageContext) -> dict[str, Any]:
        if request is None:
            return _build(config, model, data, loaded, context, ranks, safeguards, hooks)
        for change in changes:
            context.reporter.log(f"setting changed {change}")
        write_request(context.state, request, changes)
        metrics = _build(config, model, data, loaded, context, ranks, safeguards, hooks)
        beside = out.with_name(f"{out.name}.states")
        keep_permanent(context.state, beside, safeguards.permanent_every_steps)
        changed = read_changes(context.state)
        return metrics | ({"changed_settings": changed} if changed else {})

    def stage(build_: Any) -> Manifest:
        return run_stage(
            out,
            kind="model",
            config=config,
            inputs=inputs,
            seed=seed,
            build=build_,
            labels={"version": "pretrained"} | dict(labels or {}),
            reporter=reporter,
            keeps_state=True,
        )

    return run_together(ranks, build, stage)


def _build(
    config: PretrainingConfig,
    model_config: ModelConfig,
    data: Path,
    tokenizer: Tokenizer,
    context: StageContext,
    ranks: Ranks,
    safeguards: Safeguards,
    hooks: Sequence[EvaluationHook],
) -> dict[str, Any]:
    seed = derive_seed(context.seed, "weights")
    if isinstance(ranks, TorchrunRanks):
        dtype = torch.float32 if config.loop.dtype == "float32" else torch.bfloat16
        is_blank = ranks.gather(bool(saved_states(context.state)))[0]
        model = make_sharded(model_config, ranks, seed=seed, compute_dtype=dtype, is_blank=is_blank)
    else:
        model = Transformer(model_config, seed=seed).to(pick_device(config.device))
    task = PretrainingTask(model, config, data=data, bos_id=tokenizer.bos_id, seed=context.seed)
    metrics = run(
        task,
        config.loop_for(),
        context,
        description="pretraining",
        ranks=ranks,
        safeguards=safeguards,
        hooks=hooks,
    )
    generation = GenerationConfig(bos_id=tokenizer.bos_id, eos_ids=(tokenizer.eos_id,))
    save_model(model, context.folder, generation=generation, is_writer=ranks.is_writer)
    if ranks.is_writer:
        tokenizer.save(context.folder, max_seq_len=model_config.max_seq_len)
    layout = (
        {"world_size": ranks.size, "layout": str(ranks.layout)} if isinstance(ranks, TorchrunRanks) else {}
    )
    sizes = {
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "flops_per_token": task.flops_per_token,
    }
    return metrics | sizes | layout
