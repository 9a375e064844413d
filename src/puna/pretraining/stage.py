"""Pretraining (§2.2) as a stage: token shards and a tokenizer in, a base model out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from puna.core.artifacts import Manifest, StageContext, run_stage
from puna.core.progress import Reporter
from puna.core.seeding import derive_seed
from puna.model.checkpoint import save_model
from puna.model.generation_config import GenerationConfig
from puna.model.transformer import Transformer
from puna.pretraining.config import PretrainingConfig
from puna.pretraining.task import PretrainingTask
from puna.tokenizer.tokenizer import Tokenizer
from puna.training.hooks import EvaluationHook
from puna.training.loop import run

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
) -> Manifest:
    """Train a model from random weights on token shards (§2.2).

    Args:
        data: Artifact with shards/index.json; format in training/token_shards.py.
        tokenizer: The tokenizer the shards were made with; it is copied beside the model.
        labels: For the report, such as the variant of an ablation.
        hooks: Evaluation suites to run on the way; they do not change the model, so a finished one is kept whatever
            they are.
    Returns:
        Manifest of kind "model"; its metrics hold train_loss (nats per token), validation (loss and
        perplexity per source), steps, tokens and n_parameters.
    """

    def build(context: StageContext) -> dict[str, Any]:
        return _build(config, data, Tokenizer.load(tokenizer), context, hooks)

    return run_stage(
        out,
        kind="model",
        config=config,
        inputs={"data": data, "tokenizer": tokenizer},
        seed=seed,
        build=build,
        labels={"version": "pretrained"} | dict(labels or {}),
        reporter=reporter,
    )


def _build(
    config: PretrainingConfig,
    data: Path,
    tokenizer: Tokenizer,
    context: StageContext,
    hooks: Sequence[EvaluationHook],
) -> dict[str, Any]:
    model_config = config.model_config_for(tokenizer.vocab_size)
    model = Transformer(model_config, seed=derive_seed(context.seed, "weights"))
    task = PretrainingTask(model, config, data=data, bos_id=tokenizer.bos_id, seed=context.seed)
    metrics = run(task, config.loop_for(), context, description="pretraining", hooks=hooks)
    generation = GenerationConfig(bos_id=tokenizer.bos_id, eos_ids=(tokenizer.eos_id,))
    save_model(model, context.folder, generation=generation)
    tokenizer.save(context.folder, max_seq_len=model_config.max_seq_len)
    return metrics | {
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "flops_per_token": task.flops_per_token,
    }
