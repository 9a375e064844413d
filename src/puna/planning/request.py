"""What a plan is asked for, checked."""

from pathlib import Path

from pydantic import Field

from puna.core.config import Settings
from puna.core.energy import PAPER_GRID, PAPER_PUE
from puna.core.errors import ConfigError
from puna.model.config import PRESETS, ModelConfig, preset
from puna.model.hf_config import config_from_hf, read_json

__all__ = ["PlanRequest", "find_model"]


class PlanRequest(Settings):
    """A training, the GPUs it is meant for, and what a GPU-hour costs."""

    model: ModelConfig
    """Sizes of the model."""
    n_tokens: int = Field(default=2 * 10**12, gt=0)
    """Tokens to train on (Table 1: 2 T)."""
    gpu: str = "a100"
    """Name in core/accelerators.py."""
    n_gpus: int | None = Field(default=None, gt=0, le=2**20)
    """None takes the fewest, a power of two, that the training fits on."""
    gpus_per_node: int = Field(default=8, gt=0, le=1024)
    """GPUs with a fast link: tensor parallelism and hybrid shards stay inside."""
    seq_len: int | None = Field(default=None, gt=0)
    """Tokens of a row; None takes the model's context."""
    micro_batch_size: int = Field(default=1, gt=0)
    """Rows of a forward pass on one GPU."""
    batch_tokens: int = Field(default=2**22, gt=0)
    """Tokens of an update (§2.2: 4M)."""
    tp: int | None = Field(default=None, gt=0)
    """Only this degree of tensor parallelism."""
    mfu: float = Field(default=0.4, gt=0, le=1)
    """Share of the dense bfloat16 peak; the paper's runs imply 0.38 to 0.46. Our choice."""
    usd_per_gpu_hour: float = Field(default=2.0, ge=0)
    """Price of one GPU for an hour. Our choice, of no source: put your own."""
    watts: float | None = Field(default=None, gt=0)
    """Power of one GPU; None takes its TDP."""
    pue: float = Field(default=PAPER_PUE, ge=1)
    """Energy of the data centre over energy of its GPUs."""
    grid: float = Field(default=PAPER_GRID, ge=0)
    """kg CO2eq of a kWh where the GPUs stand."""

    @property
    def row_tokens(self) -> int:
        """Tokens of a row.

        Raises:
            ConfigError: it is longer than the model's context.
        """
        seq_len = self.seq_len or self.model.max_seq_len
        if seq_len > self.model.max_seq_len:
            raise ConfigError(
                where="seq_len",
                expected=f"at most the model's context of {self.model.max_seq_len} tokens",
                got=str(seq_len),
                fix="Shorten the rows.",
            )
        return seq_len

    @property
    def batch_rows(self) -> int:
        """Rows of an update.

        Raises:
            ConfigError: the batch is shorter than one row.
        """
        rows = self.batch_tokens // self.row_tokens
        if rows < 1:
            raise ConfigError(
                where="batch_tokens",
                expected=f"at least one row of {self.row_tokens} tokens",
                got=str(self.batch_tokens),
                fix="Raise batch_tokens or lower seq_len.",
            )
        return rows


def find_model(name: str) -> ModelConfig:
    """A preset, or the config.json of a Hugging Face Llama: the file, or the folder it lies in.

    Raises:
        ConfigError: it is none of these.
        CheckpointError: the file is broken or describes no Llama.
    """
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if path.is_file() or path.suffix == ".json":
        return config_from_hf(read_json(path), where=path)
    if name.lower() in PRESETS:
        return preset(name.lower())
    if "/" in name or "\\" in name:
        raise ConfigError(
            where="model",
            expected=f"a folder with a config.json, or one of {', '.join(PRESETS)}",
            got=repr(name),
            fix="Check the path.",
        )
    return preset(name)
