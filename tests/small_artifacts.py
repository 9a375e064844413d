"""Artifacts of one small file, for the tests of manifests and lineage."""

from pathlib import Path

from puna.core.artifacts import StageContext, run_stage
from puna.core.config import Settings


class Config(Settings):
    text: str = "moo"


def make(
    out: Path, *, text: str = "moo", seed: int = 0, labels: dict[str, str] | None = None, **inputs
) -> Path:
    def build(context: StageContext) -> dict[str, int]:
        (context.folder / "model.bin").write_text(text)
        return {}

    run_stage(
        out, kind="model", config=Config(text=text), inputs=inputs, seed=seed, build=build, labels=labels
    )
    return out
