"""Supervised fine-tuning (§3.1) as a stage; every later version of the chat model is made by it too (§3.2.3, §3.3)."""

from collections.abc import Sequence
from pathlib import Path

from puna.core.artifacts import StageContext
from puna.core.errors import ConfigError
from puna.core.stage import Metrics, stage
from puna.model.checkpoint import load_model, save_model
from puna.model.generation_config import read_generation_config
from puna.supervised_finetuning.config import FinetuningConfig
from puna.supervised_finetuning.dialogs import load_examples
from puna.supervised_finetuning.task import FinetuningTask
from puna.tokenizer.tokenizer import Tokenizer
from puna.training.loop import run
from puna.training.order import ShuffledOrder
from puna.training.packing import pack

__all__ = ["finetune"]


@stage("model", labels={"version": "sft"})
def finetune(
    config: FinetuningConfig, context: StageContext, *, base_model: Path, dialogs: Sequence[Path]
) -> Metrics:
    """Supervised fine-tuning: teach a model the answers of dialogs (§3.1).

    Args:
        base_model: Folder of the model to start from; its tokenizer is copied to the output.
        dialogs: .jsonl files of Dialog, or folders of `puna data dialogs`, `rlhf sample`, `gatt build` or
            `safety distill`.
    Returns:
        train_loss and validation loss (nats per answer token), what was dropped and why, and the share of padding.
    """
    tokenizer = Tokenizer.load(base_model)
    tokenizer.check_can_be_saved()
    model = load_model(base_model, device=context.device)
    if config.seq_len > model.config.max_seq_len:
        raise ConfigError(
            where="seq_len",
            expected=f"at most the base model's context of {model.config.max_seq_len} tokens",
            got=str(config.seq_len),
            fix="Lower seq_len.",
        )
    examples = load_examples(
        dialogs,
        tokenizer,
        seq_len=config.seq_len,
        repeats=config.repeats,
        validation_fraction=config.validation_fraction,
        seed=context.seed,
    )
    train, validation = (pack(part, seq_len=config.seq_len) for part in (examples.train, examples.validation))
    n_epochs = config.n_epochs if config.loop.total_steps is None else None
    order = ShuffledOrder(len(train), batch_size=config.loop.batch_size, seed=context.seed, n_epochs=n_epochs)
    loop = config.loop if order.n_steps is None else config.loop.for_steps(order.n_steps)
    size = loop.micro_batch_size
    task = FinetuningTask(model, train=train, validation=validation, order=order, micro_batch_size=size)
    metrics = run(task, loop, context, description="fine-tuning")
    save_model(model, context.folder, generation=read_generation_config(base_model))
    tokenizer.save(context.folder, max_seq_len=model.config.max_seq_len)
    return metrics | {
        "n_dialogs": len(examples.train),
        "n_held_out": len(examples.validation),
        "dropped": examples.dropped,
        "rows": len(train),
        "padding_fraction": train.padding_fraction,
    }
