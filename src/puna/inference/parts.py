"""What an engine is made of, once the first request has come: model with cache, blocks, slots and scheduler."""

from dataclasses import dataclass

from puna.inference.block_pool import BlockPool
from puna.inference.runner import Runner, pool_blocks
from puna.inference.scheduler import Scheduler
from puna.inference.slots import SlotTable
from puna.inference.weights import compute_dtype
from puna.model.transformer import Transformer

__all__ = ["Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """They belong together: the scheduler gives out the pool's blocks, which are the runner's cache."""

    runner: Runner
    pool: BlockPool
    slots: SlotTable
    scheduler: Scheduler

    @classmethod
    def make(
        cls,
        model: Transformer,
        *,
        n_slots: int,
        max_step_tokens: int,
        cache_bytes: int | None,
        has_int8_weights: bool,
        compiles: bool,
    ) -> "Parts":
        """Parts for a model as it is now, in the dtype of its products here and now."""
        config, dtype = model.config, compute_dtype(model)
        device = model.tok_embeddings.weight.device
        n_blocks = pool_blocks(config, n_slots=n_slots, cache_bytes=cache_bytes, dtype=dtype, device=device)
        pool, slots = BlockPool(n_blocks), SlotTable.empty(n_slots, config.max_seq_len)
        runner = Runner(
            model, n_blocks=n_blocks, dtype=dtype, has_int8_weights=has_int8_weights, compiles=compiles
        )
        return cls(runner, pool, slots, Scheduler(pool, slots, max_step_tokens=max_step_tokens))

    def fits_precision(self) -> bool:
        """Whether the products are still made in the dtype of the cache."""
        return self.runner.dtype == compute_dtype(self.runner.trained)

    def renew(self) -> None:
        """Take the weights as they now are; no prompt is known any more."""
        self.runner.renew()
        self.pool.forget_prefixes()
