"""Lines of real text of every kind that PUNA_DATA has, and texts that break tokenizers."""

import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

FOLDERS = ["wikitext2", "web_c4", "maths_tex", "stackexchange", "tinystories", "books"]
"""Books last: they have lines without end."""
SUFFIXES = (".gz", ".txt", ".jsonl")


def real_lines(data: Path, n: int) -> list[str]:
    """The first n lines, an equal number of each file as far as it goes; the longest books fill the rest."""
    files = [
        path
        for folder in FOLDERS
        for path in sorted((data / "pretraining" / folder).iterdir())
        if path.suffix in SUFFIXES and path.name != "SOURCE.txt"
    ]
    streams = [_lines(path) for path in files]
    found: list[str] = []
    while streams and len(found) < n:
        share = -(-(n - len(found)) // len(streams))
        taken = [list(islice(stream, share)) for stream in streams]
        streams = [stream for stream, lines in zip(streams, taken, strict=True) if len(lines) == share]
        found += [line for lines in taken for line in lines]
    return found[:n]


def _lines(path: Path) -> Iterator[str]:
    """Bytes that are no UTF-8, as in the old books, become U+FFFD; C4's JSON is opened."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        for raw in stream:
            line = raw.decode("utf-8", errors="replace").rstrip("\r\n")
            yield json.loads(line)["text"] if path.suffix == ".jsonl" else line


def adversarial_texts() -> list[str]:
    """Runs of spaces and tabs, emoji, combining marks, broken bytes, digits, long words, control characters."""
    texts = [" " * n for n in range(70)] + ["\t" * n for n in range(1, 20)] + ["\n" * n for n in range(1, 20)]
    texts += [f"a{' ' * n}b" for n in range(1, 40)] + [f"{' ' * n}x{' ' * n}" for n in range(1, 20)]
    texts += [
        f"a{space}{line_end}{space}b"
        for space in ["", " ", "  ", "   "]
        for line_end in ["\n", "\r\n", "\n\n"]
    ]
    texts += ["▁", "▁▁ ▁", "a▁b ▁ c", " ▁", "▁\n▁", "\n▁", "▁ "]
    texts += [
        "🦙",
        "👩‍👩‍👧‍👦 family",
        "🇵🇪🇧🇴",
        "👍🏽",
        "🦙" * 200,
        "e\u0301",
        "Z\u0351\u036b\u0343a" * 40,
        "\u0301",
        " \u0301",
    ]
    texts += [bytes(range(low, low + 16)).decode("utf-8", errors="replace") for low in range(0, 256, 16)]
    texts += ["caf\xe9".encode("latin-1").decode("utf-8", errors="replace"), "\ufffd" * 9]
    texts += ["0123456789" * 40, "3.14159", "1,000,000", "٣٤٥", "½²③", "1" * 1000, "12 34  56"]
    texts += [
        "a" * 5000,
        "ab" * 3000,
        "llama" * 1000,
        "-" * 1000,
        "=" * 999,
        "д" * 2000,
        "山" * 2000,
        "aA" * 1500,
    ]
    texts += [chr(code) for code in range(0x20)] + [f"a{chr(code)} b" for code in range(0x7F, 0xA1)]
    texts += [
        "\u0000a\u0000",
        "\ufeffbom",
        "\u202eright",
        "\u200b\u200d",
        "\u2028\u2029",
        "\u3000wide",
        "\u00a0",
    ]
    texts += [chr(code) for code in (0x378, 0x2FE0, 0xE000, 0xFDD0, 0xFFFF, 0x1FFFE, 0xE0080, 0x10FFFF)]
    texts += [
        "日本語のテキスト",
        "العربية",
        "हिन्दी",
        "ไทย",
        "한국어",
        "ქართული",
        "Ελληνικά",
        "עברית",
        "\U0001d518\U0001d52b",
    ]
    texts += ["<s>", "</s><unk>", "<0x0A>", "<0xFF>", "[INST] <<SYS>>\n", "<|im_end|>", "{% raw %}", "\\n"]
    return texts
