"""Model folders in the Hugging Face Llama layout: config.json, generation_config.json, model*.safetensors.

They load in transformers, vLLM and llama.cpp's converter without this code. Only safetensors is read, never pickle.
Names map one to one; no tensor changes, since the rotary layout is Hugging Face's (rope.py). Tokenizer files are
written by the tokenizer.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from puna.core.errors import StorageError
from puna.core.storage import write_json
from puna.model.config import ModelConfig
from puna.model.generation_config import GenerationConfig, write_generation_config
from puna.model.heads import ScoreModel
from puna.model.hf_config import broken, config_to_hf, read_config, read_json
from puna.model.transformer import Transformer

__all__ = [
    "MAX_SHARD_BYTES",
    "Stored",
    "hf_name",
    "load_model",
    "load_score_model",
    "meta_name",
    "opened",
    "save_model",
    "save_score_model",
    "stored_tensors",
    "write_weights",
]

M = TypeVar("M", bound=nn.Module)

MAX_SHARD_BYTES = 5 * 10**9
"""Largest weight file written; more weights go to several files with an index, as transformers does."""

STORED_DTYPES = ("BF16", "F16", "F32", "F64")
"""Types of weights that are read; integers and 8-bit floats mean a quantized model, which needs its scales."""

LLAMA_2 = GenerationConfig()

_HF_MODULES = {
    "tok_embeddings": "embed_tokens",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attention": "self_attn",
    "feed_forward": "mlp",
    "wq": "q_proj",
    "wk": "k_proj",
    "wv": "v_proj",
    "wo": "o_proj",
    "w1": "gate_proj",
    "w2": "down_proj",
    "w3": "up_proj",
}


def hf_name(name: str) -> str:
    """Hugging Face's name of one of our parameters."""
    name = name.removeprefix("trunk.")
    if name == "output.weight":
        return "lm_head.weight"
    if name == "score.weight":
        return name
    return ".".join(["model", *(_HF_MODULES.get(part, part) for part in name.split("."))])


def meta_name(name: str) -> str:
    """Meta's name, which is ours, of a tensor with a Hugging Face name."""
    if name == "lm_head.weight":
        return "output.weight"
    ours = {theirs: mine for mine, theirs in _HF_MODULES.items()}
    return ".".join(ours.get(part, part) for part in name.removeprefix("model.").split("."))


def save_model(
    model: Transformer,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    generation: GenerationConfig = LLAMA_2,
    is_writer: bool = True,
) -> None:
    """Write a LlamaForCausalLM folder.

    Args:
        dtype: Of the stored weights; None keeps the model's.
        generation: Special tokens and sampling of the model's tokenizer, or of the folder it was trained from.
        is_writer: False on processes that hold pieces of the model and only lend them.
    Raises:
        StorageError: the weights could not be written.
    """
    architecture = "LlamaForCausalLM"
    _save(model, model.config, architecture, folder, dtype, max_shard_bytes, generation, is_writer)
    if not is_writer:
        return
    write_generation_config(generation, folder, max_length=model.config.max_seq_len)


def save_score_model(
    model: ScoreModel,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    generation: GenerationConfig = LLAMA_2,
) -> None:
    """Write a LlamaForSequenceClassification folder with one label; `generation` lends its token ids."""
    architecture = "LlamaForSequenceClassification"
    _save(model, model.trunk.config, architecture, folder, dtype, MAX_SHARD_BYTES, generation)


def load_model(
    folder: Path, *, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> Transformer:
    """Read a LlamaForCausalLM folder, ours or anyone's.

    Args:
        device: Has no default, so that no caller leaves a model on the CPU by oversight.
    Raises:
        CheckpointError: a file is missing, truncated, of another architecture or shape, or holds NaN or infinity.
    """
    config = read_config(folder, architecture="LlamaForCausalLM")
    with torch.device("meta"):
        model = Transformer(config)
    return _load(model, config, folder, dtype, device)


def load_score_model(
    folder: Path, *, device: torch.device | str, dtype: torch.dtype = torch.float32
) -> ScoreModel:
    """Read a LlamaForSequenceClassification folder with one label; arguments and errors as `load_model`'s."""
    config = read_config(folder, architecture="LlamaForSequenceClassification")
    with torch.device("meta"):
        model = ScoreModel(Transformer(config))
    return _load(model, config, folder, dtype, device)


def _save(
    model: nn.Module,
    config: ModelConfig,
    architecture: str,
    folder: Path,
    dtype: torch.dtype | None,
    max_shard_bytes: int,
    generation: GenerationConfig,
    is_writer: bool = True,
) -> None:
    """Gather, where the model lies in pieces, and write file after file: one file's weights are held at a time."""
    weights = {hf_name(name): weight for name, weight in model.named_parameters()}
    stored = dtype or next(iter(weights.values())).dtype

    def gathered(name: str) -> Tensor:
        whole = _whole(weights[name].detach())
        return whole.to("cpu", stored) if is_writer else whole

    sizes = {name: weight.numel() * stored.itemsize for name, weight in weights.items()}
    write_weights(folder, sizes, gathered, max_shard_bytes=max_shard_bytes, is_writer=is_writer)
    if not is_writer:
        return
    values = config_to_hf(config, architecture=architecture, dtype=stored, token_ids=generation.token_ids())
    write_json(folder / "config.json", values)


def write_weights(
    folder: Path,
    n_bytes: Mapping[str, int],
    read: Callable[[str], Tensor],
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    is_writer: bool = True,
) -> None:
    """Write model.safetensors, or several files with an index; the tensors of one file are held at a time.

    Args:
        n_bytes: Of each tensor, by Hugging Face name, in the order in which they fill the files.
        read: Gives a tensor on the CPU in the format to store.
        is_writer: False on processes that only take part in the reading.
    Raises:
        StorageError: the weights could not be written.
    """
    shards = _shards(n_bytes, max_shard_bytes)
    n_shards = len(shards)
    index: dict[str, str] = {}
    if is_writer:
        folder.mkdir(parents=True, exist_ok=True)
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{n_shards:05d}.safetensors" if n_shards > 1 else "model.safetensors"
        index |= dict.fromkeys(shard, file)
        tensors = {}
        for name in shard:
            tensor = read(name)
            if is_writer:
                tensors[name] = tensor.contiguous()
        if is_writer:
            _write_weights(tensors, folder / file)
    if is_writer and n_shards > 1:
        total = {"total_size": sum(n_bytes.values())}
        write_json(folder / "model.safetensors.index.json", {"metadata": total, "weight_map": index})


def _whole(weight: Tensor) -> Tensor:
    """A weight's pieces put together, where several processes hold them."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def _write_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    """One file of tensors; safetensors alone would make it readable to its owner only, whatever the umask says."""
    path.unlink(missing_ok=True)
    try:
        path.touch()
        mode = path.stat().st_mode
        save_file(dict(tensors), path, metadata={"format": "pt"})
        path.chmod(mode)
    except SafetensorError as error:
        raise StorageError(
            where=str(path),
            expected="room for the weights",
            got=str(error),
            fix="Free disk space and run the same command again.",
        ) from None


def _shards(n_bytes: Mapping[str, int], max_bytes: int) -> list[list[str]]:
    """Names by file, in order; a tensor larger than the limit has a file of its own."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, n in n_bytes.items():
        if shards[-1] and size + n > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += n
    return shards


def _load(model: M, config: ModelConfig, folder: Path, dtype: torch.dtype, device: torch.device | str) -> M:
    """Check every name, type and shape against the files' headers, then allocate and fill."""
    wanted = {hf_name(name): weight.shape for name, weight in model.named_parameters()}
    stored = stored_tensors(folder)
    _check_names(folder, wanted.keys(), stored.keys(), tie_embeddings=config.tie_embeddings)
    for name, shape in wanted.items():
        found = stored[name]
        if found.shape != tuple(shape):
            raise broken(
                folder, f"{name} of shape {tuple(shape)}, as config.json says", f"shape {found.shape}"
            )
        if found.dtype not in STORED_DTYPES:
            raise broken(found.path, f"{name} in a floating-point type of 16 bits or more", found.dtype)
    model.to(dtype).to_empty(device=device)
    for name, weight in model.named_parameters():
        _fill(weight, hf_name(name), stored[hf_name(name)].path)
    return model


def _weight_files(folder: Path) -> list[Path]:
    """model.safetensors, or the shards that the index names."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [folder / "model.safetensors"]
    weight_map = read_json(index).get("weight_map")
    names = list(weight_map.values()) if isinstance(weight_map, dict) else []
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise broken(index, "a weight_map from tensors to safetensors files of this folder", repr(name))
    if not names:
        raise broken(index, "a weight_map from tensors to safetensors files of this folder", "none")
    return [folder / name for name in sorted(set(names))]


class Stored(NamedTuple):
    """Where a tensor lies and what its file's header says of it."""

    path: Path
    shape: tuple[int, ...]
    dtype: str


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every stored tensor, from the headers; no weight is read.

    Raises:
        CheckpointError: a file is missing, damaged or outside the folder, or a name stands in two files.
    """
    stored: dict[str, Stored] = {}
    for path in _weight_files(folder):
        with opened(path) as file:
            for name in sorted(file.keys()):
                if name in stored:
                    raise broken(path, f"{name} in one file", f"it in {stored[name].path.name} too")
                part = file.get_slice(name)
                stored[name] = Stored(path, tuple(part.get_shape()), str(part.get_dtype()))
    return stored


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, its header checked against its size.

    Raises:
        CheckpointError: it is missing, truncated or damaged.
    """
    if not path.is_file():
        raise broken(path, "a safetensors file (pickled weights are never read)", "no such file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise broken(path, "a whole safetensors file", f"{error}") from None


def _check_names(folder: Path, wanted: Set[str], stored: Set[str], *, tie_embeddings: bool) -> None:
    """Every tensor there, and none that this architecture would silently ignore."""
    missing = sorted(wanted - stored)
    if missing:
        raise broken(folder, f"{len(wanted)} tensors", f"no {missing[0]} ({len(missing)} missing)")
    ignored = {"lm_head.weight"} if tie_embeddings else set()
    unknown = sorted(n for n in stored - wanted - ignored if not n.endswith("rotary_emb.inv_freq"))
    if unknown:
        raise broken(folder, "the tensors of a Llama 2", f"also {unknown[0]} ({len(unknown)} unknown)")


@torch.no_grad()
def _fill(weight: Tensor, name: str, path: Path) -> None:
    """Copy one tensor, refusing what no training run can have meant.

    The file is opened anew for each: an open file keeps all the pages read so far in memory beside the model.
    """
    with opened(path) as file:
        weight.copy_(file.get_tensor(name))
    low, high = weight.aminmax()
    if not (low.isfinite() and high.isfinite()):
        raise broken(path, f"finite numbers in {name}, as {weight.dtype}", "NaN or infinity")
