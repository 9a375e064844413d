"""The paper's numbers against a second copy, typed from the paper's tables row by row as they are printed.

A slip of the pen in one of the two copies, such as 63.2 for 62.3, shows as a difference between them.
"""

import pytest

from puna.reporting import paper_numbers


def rows(table: str) -> list[list[str]]:
    """The cells of a Markdown table, line by line."""
    lines = [line.strip().strip("|") for line in table.strip().splitlines()]
    return [[cell.strip() for cell in line.split("|")] for line in lines]


def cells(table: str) -> dict[str, dict[str, str]]:
    """Row label -> column heading -> cell."""
    (_, *headings), *body = rows(table)
    return {label: dict(zip(headings, values, strict=True)) for label, *values in body}


def numbers(line: str) -> dict[str, float]:
    """`name value` pairs apart by commas."""
    pairs = (pair.rsplit(maxsplit=1) for pair in line.split(", "))
    return {name: float(value) for name, value in pairs}


TABLE_8 = """
| Reward model and test set   | Significantly Better | Better | Slightly Better | Negligibly Better / Unsure | Avg |
| Safety RM, Meta Safety       | 94.3 | 76.3 | 65.7 | 55.3 | 64.5 |
| Helpfulness RM, Meta Safety  | 89.9 | 73.2 | 63.8 | 54.5 | 62.8 |
| Safety RM, Meta Helpful      | 64.6 | 57.5 | 53.8 | 52.2 | 56.2 |
| Helpfulness RM, Meta Helpful | 80.7 | 67.5 | 60.9 | 54.7 | 63.2 |
"""
TABLE_29 = """
| | Avg | Safe, Unsafe Rejected | Safe, Safe Rejected | Unsafe, Unsafe Rejected | Unsafe Response Recall |
| Baseline         | 63.7 | 93.0 | 56.0 | 59.5 | 73.0 |
| + Auxiliary Loss | 64.5 | 94.3 | 56.9 | 59.9 | 90.4 |
"""
TABLE_30 = """
| Dialogue Turn | Baseline | + GAtt |
| 2  | 100 | 100 |
| 4  | 10  | 100 |
| 6  | 0   | 100 |
| 20 | 0   | 100 |
"""
TABLE_6_META = """
| Dataset | Num. of Comparisons | Avg. Turns per Dialogue | Avg. Tokens per Example | in Prompt | in Response |
| Meta    | 1418091 | 3.9 | 798.5 | 31.4 | 234.1 |
"""
TABLE_16 = """
| Context Length | NarrativeQA F1 | Qasper F1 | QuALITY acc. | QMSum R1/R2/RL | ContractNLI EM | SQuAD EM/F1 |
| 2k | 0.21  | 0.71  | 26.1 | 0.13/0.01/0.12   | 11.76 | 57.23/62.89 |
| 4k | 17.26 | 18.52 | 29.6 | 15.08/3.55/12.16 | 16.33 | 57.99/64.46 |
"""
TABLE_17 = """
| Context Length | HellaSwag | NQ, 64 shots | TQA, 64 shots | GSM8K, 8 shots | HumanEval |
| 2k | 75.1 | 25.5 | 53.7 | 4.9 | 7.9 |
| 4k | 74.8 | 25.5 | 52.2 | 6.5 | 7.3 |
"""
TABLE_18 = """
|     | BoolQ | PIQA | SIQA | HellaSwag | ARC-e | ARC-c | NQ   | TQA  | MMLU | GSM8K | HumanEval |
| MHA | 71.0  | 79.3 | 48.2 | 75.1      | 71.2  | 43.0  | 12.4 | 44.7 | 28.0 | 4.9   | 7.9       |
| MQA | 70.6  | 79.0 | 47.9 | 74.5      | 71.6  | 41.9  | 14.5 | 42.8 | 26.5 | 4.8   | 7.3       |
| GQA | 69.4  | 78.8 | 48.6 | 75.4      | 72.1  | 42.5  | 14.0 | 46.2 | 26.9 | 5.3   | 7.9       |
"""
FIGURE_11 = """
| Judged by Meta's reward models | helpfulness | harmlessness |
| SFT-v1           | 39 | 22 |
| SFT-v2           | 54 | 48 |
| RLHF-v1          | 61 | 48 |
| RLHF-v2          | 63 | 45 |
| RLHF-v3          | 65 | 54 |
| RLHF-v4          | 67 | 59 |
| RLHF-v5 (no PPO) | 70 | 67 |
| RLHF-v5 (PPO)    | 78 | 76 |
"""
FIGURE_25 = """
| Batch | significantly better | better | slightly better | negligibly better |
| first | 18.3 | 27.7 | 29.0 | 25.0 |
| last  | 9.0  | 21.3 | 31.2 | 38.5 |
"""
TABLE_10 = (
    "en 89.70, unknown 8.38, de 0.17, fr 0.16, sv 0.15, zh 0.13, es 0.13, ru 0.13, nl 0.12, it 0.11, ja 0.10, "
    "pl 0.09, pt 0.09, vi 0.08"
)
TABLE_9A = (
    "gendered 75.23, she 28.45, he 50.73, unspecified 86.38, "
    "any_person 94.47, first_person 70.71, second_person 61.80, third_person 93.07"
)
TABLE_9B = (
    "gender_and_sex 5.91, sexual_orientation 6.67, nationality 14.83, race_and_ethnicity 19.51, religion 7.93"
)


def _table_8() -> dict[tuple[str, str], tuple[float, ...]]:
    named = {"Safety RM": "safety", "Helpfulness RM": "helpfulness"}
    sets = {"Meta Safety": "safety", "Meta Helpful": "helpfulness"}
    table = {}
    for label, row in cells(TABLE_8).items():
        model, test_set = label.split(", ")
        table[named[model], sets[test_set]] = tuple(map(float, row.values()))
    return table


def _columns(table: str, names: list[str]) -> dict[str, tuple[float, ...]]:
    """Column heading, renamed -> the column from top to bottom."""
    body = cells(table)
    headings = rows(table)[0][1:]
    return {
        name: tuple(float(row[heading]) for row in body.values())
        for name, heading in zip(names, headings, strict=True)
    }


def _rows_of(table: str) -> dict[str, tuple[float, ...]]:
    return {label: tuple(map(float, row.values())) for label, row in cells(table).items()}


RATINGS = ["significantly_better", "better", "slightly_better", "negligibly_better"]
STATISTICS = [
    "comparisons", "turns_per_dialog", "tokens_per_example", "tokens_per_prompt", "tokens_per_response",
]  # fmt: skip

SECOND_COPY: dict[str, object] = {
    "ATTENTION": cells(TABLE_18),
    "CONSTRAINT_KEPT": {int(turn): pair for turn, pair in _rows_of(TABLE_30).items()},
    "CONTEXT_LONG": cells(TABLE_16),
    "CONTEXT_SHORT": cells(TABLE_17),
    "DATA_STATISTICS": {name: value for name, (value,) in _columns(TABLE_6_META, STATISTICS).items()},
    "DISTILLATION_MEDIANS": numbers("without 0.75, generic 0.82, template 0.87"),
    "EVOLUTION": _rows_of(FIGURE_11),
    "FALSE_REFUSAL": numbers("helpfulness prompts 0.05, borderline prompts 27"),
    "FINAL_LOSSES": {"7B": "1.74", "13B": "1.67", "34B": "1.57", "70B": "1.50"},
    "LANGUAGES": numbers(TABLE_10),
    "PRONOUNS": numbers(TABLE_9A),
    "RATING_SHARES": _columns(FIGURE_25, RATINGS),
    "REWARD_ACCURACY": _table_8(),
    "SAFETY_AUXILIARY": dict(
        zip(("baseline", "with auxiliary loss"), _rows_of(TABLE_29).values(), strict=True)
    ),
    "SAFETY_BINS": numbers("chosen_safe_rejected_unsafe 18, both_safe 47, both_unsafe 35"),
    "TERMS": numbers(TABLE_9B),
    "VIOLATION": numbers("7B 3, 13B 3, 34B 7, 70B 4"),
}
"""Constant of paper_numbers -> the same from the tables above."""


@pytest.mark.parametrize("name", paper_numbers.__all__)
def test_both_copies_agree(name: str) -> None:
    assert getattr(paper_numbers, name) == SECOND_COPY[name]


def test_the_copy_names_nothing_that_is_gone() -> None:
    assert set(SECOND_COPY) == set(paper_numbers.__all__)
