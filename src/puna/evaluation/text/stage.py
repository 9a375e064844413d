"""Held-out text as a suite: measured on a finished model as a stage, or every so many updates as a training hook."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from puna.core.artifacts import StageContext
from puna.core.intervals import mean_interval, wilson_interval
from puna.core.stage import Metrics, stage
from puna.evaluation.text.config import TextEvaluationConfig
from puna.evaluation.text.continuations import choice_hits, choice_items
from puna.evaluation.text.documents import held_out_documents
from puna.evaluation.text.positions import perplexity_by_position, windowed_logprobs
from puna.evaluation.text.recall import recall_hits, recall_rows
from puna.model.checkpoint import load_model
from puna.model.transformer import Transformer
from puna.tokenizer.tokenizer import Tokenizer

__all__ = ["TextSuite", "evaluate_text", "measure_text"]


@stage("text_evaluation")
def evaluate_text(
    config: TextEvaluationConfig,
    stage_context: StageContext,
    *,
    model: Path,
    data: Path,
    context: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
) -> Metrics:
    """Measure a model on the held-out shards.

    Args:
        data: Artifact with token shards of the model's own tokenizer.
        context: Tokens the model may look back on; None is the model's whole context.
        dtype: Precision of matrix products; bfloat16 is autocast over float32 weights.
    Returns:
        As `measure_text`.
    """
    device = stage_context.device
    transformer = load_model(model, device=device).eval()
    return measure_text(
        transformer,
        config,
        data=data,
        bos_id=Tokenizer.load(model).bos_id,
        seed=stage_context.seed,
        context=context or transformer.config.max_seq_len,
        precision=torch.autocast(device.type, dtype=getattr(torch, dtype), enabled=dtype != "float32"),
    )


@torch.no_grad()
def measure_text(
    model: Transformer,
    config: TextEvaluationConfig,
    *,
    data: Path,
    bos_id: int,
    seed: int,
    context: int,
    precision: AbstractContextManager[object],
) -> dict[str, Any]:
    """Perplexity by position, choices and recall.

    Returns:
        `positions` (group -> perplexity, loss, n), `perplexity` and `choice` by source, `choice` in all, `recall`
        (distance -> accuracy, its control, intervals), and `context`.
    """
    documents = held_out_documents(data, bos_id=bos_id, n_tokens=config.n_tokens)
    batch_rows = max(1, config.batch_tokens // config.n_tokens)
    by_source: dict[str, Any] = {}
    logprobs, hits = [], []
    with precision:
        for source, found in documents.items():
            measured, source_hits = _of_source(model, config, found, seed, context, batch_rows)
            by_source[source] = {
                "perplexity": (-measured.double().mean()).exp().item(),
                "n": measured.numel(),
            }
            by_source[source] |= {"choice": _share(source_hits)}
            logprobs.append(measured)
            hits += source_hits
        recall = _recall(model, config, [d for found in documents.values() for d in found], seed, context)
    return {
        "context": context,
        "positions": perplexity_by_position(torch.cat(logprobs), config.position_edges),
        "by_source": by_source,
        "choice": _share(hits),
        "recall": recall,
    }


def _of_source(
    model: Transformer,
    config: TextEvaluationConfig,
    documents: list[Tensor],
    seed: int,
    context: int,
    batch_rows: int,
) -> tuple[Tensor, list[bool]]:
    rows = torch.stack([document[: config.n_tokens] for document in documents[: config.max_documents]])
    pieces = [windowed_logprobs(model, piece, context=context) for piece in rows.split(batch_rows)]
    items = choice_items(
        documents,
        n_tokens=config.n_tokens,
        continuation_tokens=config.continuation_tokens,
        n_choices=config.n_choices,
        max_items=config.max_items,
        seed=seed,
    )
    hits = choice_hits(
        model,
        items,
        continuation_tokens=config.continuation_tokens,
        context=context,
        batch_rows=batch_rows,
    )
    return torch.cat(pieces), hits


def _recall(
    model: Transformer, config: TextEvaluationConfig, documents: list[Tensor], seed: int, context: int
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for distance in config.recall_distances:
        found[str(distance)] = {}
        for name, is_control in (("found", False), ("control", True)):
            rows = recall_rows(
                documents,
                distance=distance,
                passage_tokens=config.passage_tokens,
                n_passages=config.n_passages,
                seed=seed,
                is_control=is_control,
            )
            hits = recall_hits(
                model,
                rows,
                n_asked=config.passage_tokens - config.cue_tokens,
                context=context,
                batch_rows=max(1, config.batch_tokens // rows.shape[1]),
            )
            by_passage = hits.double().mean(dim=1).tolist()
            interval = mean_interval(by_passage)
            found[str(distance)][name] = {
                "accuracy": sum(by_passage) / len(by_passage),
                "interval": [*interval, len(by_passage)],
            }
    return found


def _share(hits: list[bool]) -> dict[str, Any]:
    accuracy = sum(hits) / len(hits) if hits else None
    return {"accuracy": accuracy, "interval": [*wilson_interval(sum(hits), len(hits)), len(hits)]}


@dataclass(frozen=True, kw_only=True)
class TextSuite:
    """The same measurements as a hook of training: one row of metrics each time."""

    data: Path
    bos_id: int
    seed: int
    every_steps: int
    config: TextEvaluationConfig = field(default_factory=TextEvaluationConfig)
    context: int | None = None
    name: str = "text"

    def evaluate(self, model: nn.Module, step: int) -> dict[str, float]:
        """Flat numbers, such as `perplexity/1-256`, `choice` and `recall/512`."""
        assert isinstance(model, Transformer)
        found = measure_text(
            model,
            self.config,
            data=self.data,
            bos_id=self.bos_id,
            seed=self.seed,
            context=self.context or model.config.max_seq_len,
            precision=nullcontext(),
        )
        values = {f"perplexity/{group}": row["perplexity"] for group, row in found["positions"].items()}
        values |= {f"recall/{d}": row["found"]["accuracy"] for d, row in found["recall"].items()}
        if found["choice"]["accuracy"] is not None:
            values["choice"] = found["choice"]["accuracy"]
        return values
