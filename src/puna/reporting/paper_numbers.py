"""The paper's own numbers, for the columns named paper; each constant cites its table.

They measure another thing than a run of this project does: people's judgements of a 7B to 70B model.
"""

__all__ = [
    "ATTENTION",
    "CONSTRAINT_KEPT",
    "CONTEXT_LONG",
    "CONTEXT_SHORT",
    "DATA_STATISTICS",
    "DISTILLATION_MEDIANS",
    "EVOLUTION",
    "FALSE_REFUSAL",
    "FINAL_LOSSES",
    "LANGUAGES",
    "PRONOUNS",
    "RATING_SHARES",
    "REWARD_ACCURACY",
    "SAFETY_AUXILIARY",
    "SAFETY_BINS",
    "TERMS",
    "VIOLATION",
]

REWARD_ACCURACY: dict[tuple[str, str], tuple[float, ...]] = {
    ("safety", "safety"): (94.3, 76.3, 65.7, 55.3, 64.5),
    ("helpfulness", "safety"): (89.9, 73.2, 63.8, 54.5, 62.8),
    ("safety", "helpfulness"): (64.6, 57.5, 53.8, 52.2, 56.2),
    ("helpfulness", "helpfulness"): (80.7, 67.5, 60.9, 54.7, 63.2),
}
"""Table 8, percent: (reward model, test set) -> the four ratings, strongest first, then the average."""

SAFETY_AUXILIARY: dict[str, tuple[float, ...]] = {
    "baseline": (63.7, 93.0, 56.0, 59.5, 73.0),
    "with auxiliary loss": (64.5, 94.3, 56.9, 59.9, 90.4),
}
"""Table 29, percent: average, the three safety bins of Section 3.2.1, recall of unsafe responses."""

CONSTRAINT_KEPT: dict[int, tuple[float, float]] = {2: (100, 100), 4: (10, 100), 6: (0, 100), 20: (0, 100)}
"""Table 30, percent by turn: baseline, with GAtt."""

SAFETY_BINS = {"chosen_safe_rejected_unsafe": 18.0, "both_safe": 47.0, "both_unsafe": 35.0}
"""Section 3.2.1, percent of safety comparisons."""

RATING_SHARES = {
    "significantly_better": (18.3, 9.0),
    "better": (27.7, 21.3),
    "slightly_better": (29.0, 31.2),
    "negligibly_better": (25.0, 38.5),
}
"""Figure 25, percent in the first and the last batch, read off the chart by eye."""

DATA_STATISTICS = {
    "comparisons": 1_418_091,
    "turns_per_dialog": 3.9,
    "tokens_per_example": 798.5,
    "tokens_per_prompt": 31.4,
    "tokens_per_response": 234.1,
}
"""Table 6, the row of Meta's own data."""

LANGUAGES = {"en": 89.70, "unknown": 8.38, "de": 0.17, "fr": 0.16, "sv": 0.15, "zh": 0.13, "es": 0.13}
LANGUAGES |= {"ru": 0.13, "nl": 0.12, "it": 0.11, "ja": 0.10, "pl": 0.09, "pt": 0.09, "vi": 0.08}
"""Table 10, percent of documents; languages down to 0.08 percent."""

PRONOUNS = {"gendered": 75.23, "she": 28.45, "he": 50.73, "unspecified": 86.38}
PRONOUNS |= {"any_person": 94.47, "first_person": 70.71, "second_person": 61.80, "third_person": 93.07}
"""Table 9a, percent of English documents."""

TERMS = {"gender_and_sex": 5.91, "sexual_orientation": 6.67, "nationality": 14.83}
TERMS |= {"race_and_ethnicity": 19.51, "religion": 7.93}
"""Table 9b, percent of English documents that mention the axis, by all terms of HolisticBias."""

EVOLUTION = {
    "SFT-v1": (39, 22),
    "SFT-v2": (54, 48),
    "RLHF-v1": (61, 48),
    "RLHF-v2": (63, 45),
    "RLHF-v3": (65, 54),
    "RLHF-v4": (67, 59),
    "RLHF-v5 (no PPO)": (70, 67),
    "RLHF-v5 (PPO)": (78, 76),
}
"""Figure 11, left panel: win rate against ChatGPT by Meta's reward models, helpfulness and harmlessness,
percent, read off the chart by eye."""

VIOLATION = {"7B": 3.0, "13B": 3.0, "34B": 7.0, "70B": 4.0}
"""Figure 17a, percent of 1,974 adversarial prompts, final chat models, read off the chart by eye."""

FALSE_REFUSAL = {"helpfulness prompts": 0.05, "borderline prompts": 27.0}
"""Section 4.2.3, percent with all safety data."""

DISTILLATION_MEDIANS = {"without": 0.75, "generic": 0.82, "template": 0.87}
"""Figure 16a, median safety score by kind of preprompt, read off the chart by eye."""

FINAL_LOSSES = {"7B": "1.74", "13B": "1.67", "34B": "1.57", "70B": "1.50"}
"""Figure 5 at 2 T tokens, nats per token, read off the chart by eye."""

CONTEXT_LONG = {
    "2k": {
        "NarrativeQA F1": "0.21",
        "Qasper F1": "0.71",
        "QuALITY acc.": "26.1",
        "QMSum R1/R2/RL": "0.13/0.01/0.12",
        "ContractNLI EM": "11.76",
        "SQuAD EM/F1": "57.23/62.89",
    },
    "4k": {
        "NarrativeQA F1": "17.26",
        "Qasper F1": "18.52",
        "QuALITY acc.": "29.6",
        "QMSum R1/R2/RL": "15.08/3.55/12.16",
        "ContractNLI EM": "16.33",
        "SQuAD EM/F1": "57.99/64.46",
    },
}
"""Table 16."""

_GENERAL = ("HellaSwag", "NQ, 64 shots", "TQA, 64 shots", "GSM8K, 8 shots", "HumanEval")
CONTEXT_SHORT = {
    "2k": dict(zip(_GENERAL, ("75.1", "25.5", "53.7", "4.9", "7.9"), strict=True)),
    "4k": dict(zip(_GENERAL, ("74.8", "25.5", "52.2", "6.5", "7.3"), strict=True)),
}
"""Table 17, percent."""

_TASKS = ("BoolQ", "PIQA", "SIQA", "HellaSwag", "ARC-e", "ARC-c", "NQ", "TQA", "MMLU", "GSM8K", "HumanEval")


def _scores(row: str) -> dict[str, str]:
    return dict(zip(_TASKS, row.split(), strict=True))


ATTENTION = {
    "MHA": _scores("71.0 79.3 48.2 75.1 71.2 43.0 12.4 44.7 28.0 4.9 7.9"),
    "MQA": _scores("70.6 79.0 47.9 74.5 71.6 41.9 14.5 42.8 26.5 4.8 7.3"),
    "GQA": _scores("69.4 78.8 48.6 75.4 72.1 42.5 14.0 46.2 26.9 5.3 7.9"),
}
"""Table 18, percent: the feed-forward layers of MQA and GQA are 1.33 and 1.3 times wider."""
