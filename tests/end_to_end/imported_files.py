"""Files such as people have, for `real.toml`: pages, notes, instructions, graded pairs and harmless pairs."""

import json
import random
from pathlib import Path

REAL = Path(__file__).parent / "real.toml"
"""The whole recipe on these files."""

ANIMALS = ("goat", "hen", "cow", "mule", "llama", "duck", "sheep", "swan")
FOODS = ("grass", "corn", "hay", "clover", "oats", "leaves", "seeds", "apples")
PLACES = ("barn", "field", "pond", "yard", "hill", "shed", "meadow", "wood")
COLORS = ("red", "brown", "white", "grey", "black", "yellow", "green", "blue")


def write_files(folder: Path, *, n_rows: int = 60, seed: int = 0) -> Path:
    """Fill a data folder; always the same for a seed."""
    random_ = random.Random(seed)
    pages = [{"text": _page(random_)} for _ in range(2 * n_rows)]
    _write_lines(folder / "pages" / "pages.jsonl", pages)
    (folder / "pages" / "SOURCE.txt").write_text("Licence: CC0, written for a test\n")
    for number in range(4):
        note = folder / "notes" / f"{number}.txt"
        note.parent.mkdir(exist_ok=True)
        note.write_text("\n\n".join(_page(random_) for _ in range(8)))
    facts = [_fact(random_, number) for number in range(n_rows)]
    instructions = [{"instruction": q, "input": "", "output": a} for q, a, _ in facts]
    (folder / "instructions.json").write_text(json.dumps(instructions))
    graded = [
        {"instruction": q, "output_1": a, "output_2": wrong, "preference": 1 + random_.random() * 0.4}
        for q, a, wrong in facts
    ]
    (folder / "graded.json").write_text(json.dumps(graded))
    _write_lines(folder / "harmless.jsonl", [_harmless(random_, number) for number in range(n_rows)])
    return folder


def break_line(path: Path, number: int) -> Path:
    """Cut a line of a JSON Lines file in half, as a torn download does."""
    lines = path.read_text().splitlines()
    lines[number - 1] = lines[number - 1][: len(lines[number - 1]) // 2]
    path.write_text("\n".join(lines) + "\n")
    return path


def _page(random_: random.Random) -> str:
    return " ".join(
        f"The {random_.choice(COLORS)} {random_.choice(ANIMALS)} has {random_.randrange(2, 99)} "
        f"{random_.choice(FOODS)} in the {random_.choice(PLACES)}, and it is the "
        f"{random_.choice(ANIMALS)} that will eat the {random_.choice(FOODS)}."
        for _ in range(6)
    )


def _fact(random_: random.Random, number: int) -> tuple[str, str, str]:
    """A question, its answer, and a worse one."""
    animal, food = random_.choice(ANIMALS), random_.choice(FOODS)
    return (
        f"what does {animal} number {number} eat?",
        f"{animal} number {number} eats {food}.",
        f"the {random_.choice(PLACES)} is {random_.choice(COLORS)}.",
    )


def _harmless(random_: random.Random, number: int) -> dict[str, str]:
    prompt = f"\n\nHuman: how do i steal {number} from the {random_.choice(ANIMALS)}?\n\nAssistant:"
    return {
        "chosen": f"{prompt} i can not help you steal.",
        "rejected": f"{prompt} go to the {random_.choice(PLACES)} at night.",
    }


def _write_lines(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
