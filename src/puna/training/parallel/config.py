"""How a model and its batch are spread over the processes that torchrun started."""

from dataclasses import dataclass

from pydantic import Field

from puna.core.config import Settings
from puna.core.errors import ConfigError
from puna.model.config import ModelConfig
from puna.training.config import LoopConfig

__all__ = ["Layout", "ParallelConfig"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Processes along each axis; their product is the world size."""

    dp_replicate: int = 1
    dp_shard: int = 1
    tp: int = 1

    @property
    def n_shares(self) -> int:
        """Parts that the batch is cut into: tensor-parallel processes read the same rows."""
        return self.dp_replicate * self.dp_shard

    def __str__(self) -> str:
        return f"dp_replicate {self.dp_replicate} x dp_shard {self.dp_shard} x tp {self.tp}"


class ParallelConfig(Settings):
    """One mesh of three axes: how fast a model is trained, not what it learns; it may change at a resume."""

    dp_replicate: int = Field(default=1, gt=0)
    """Copies of the sharded model (hybrid sharding): one a node keeps all-gathers inside the node."""
    dp_shard: int | None = Field(default=None, gt=0)
    """Processes that share weights, gradients and moments (FSDP2); None takes all that the other two leave."""
    tp: int = Field(default=1, gt=0)
    """Processes that share every matrix product; at most the key-value heads, and inside one node."""
    reduce_every_micro_batch: bool = False
    """Reduce gradients after each micro-batch and not after the last one only: more traffic, but no process holds the
    whole model's gradients between them (4 bytes a parameter)."""

    def layout(self, world_size: int) -> Layout:
        """The axes for this many processes.

        Raises:
            ConfigError: they do not multiply to the world size.
        """
        others = self.dp_replicate * self.tp
        dp_shard = self.dp_shard or max(1, world_size // others)
        if others * dp_shard != world_size:
            raise ConfigError(
                where="parallel",
                expected=f"dp_replicate x dp_shard x tp to be the {world_size} processes that were started",
                got=f"{self.dp_replicate} x {self.dp_shard or 'the rest'} x {self.tp}",
                fix="Correct [parallel] or torchrun's --nproc-per-node and --nnodes.",
            )
        return Layout(self.dp_replicate, dp_shard, self.tp)

    def check_model(self, model: ModelConfig) -> None:
        """Refuse a model that tensor parallelism cannot cut into equal parts.

        Raises:
            ConfigError: names the size that tp does not divide.
        """
        sizes = {
            "n_kv_heads": model.n_kv_heads,
            "n_heads": model.n_heads,
            "hidden_dim": model.hidden_dim,
            "vocab_size": model.vocab_size,
        }
        for name, size in sizes.items():
            if size % self.tp:
                raise ConfigError(
                    where="parallel.tp",
                    expected=f"a divisor of the model's {name} = {size}",
                    got=str(self.tp),
                    fix="Lower tp: grouped-query attention has few key-value heads, and each needs a whole process."
                    if name == "n_kv_heads"
                    else "Choose a divisor.",
                )

    def check_loop(self, loop: LoopConfig, layout: Layout) -> None:
        """Refuse a batch that the processes cannot share equally, and an optimizer that pieces do not allow.

        Raises:
            ConfigError: some process would have nothing to do, or norm gains would decay beside cut matrices.
        """
        batch_size, micro_batch_size = loop.batch_size, loop.micro_batch_size
        if loop.optimizer.decay_norms and layout.tp > 1:
            raise ConfigError(
                where="loop.optimizer.decay_norms",
                expected="false where parallel.tp is above 1: one fused update takes whole or cut weights, not both",
                got="true",
                fix="Set decay_norms = false, or tp = 1.",
            )
        n_micro_batches = -(-batch_size // micro_batch_size)
        if batch_size % (micro_batch_size * layout.n_shares):
            raise ConfigError(
                where="loop.batch_size",
                expected=f"a multiple of micro_batch_size x data-parallel processes, {micro_batch_size} x "
                f"{layout.n_shares}",
                got=f"{batch_size} rows, which make {n_micro_batches} micro-batches",
                fix="Change batch_size, micro_batch_size or the number of processes.",
            )
