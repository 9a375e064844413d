"""`puna plan`: JSON for scripts, tables within 100 columns for people, messages for mistakes."""

import json

import pytest


def test_json_ends_with_the_promised_keys(say) -> None:
    said = say("plan", "--model", "7b", "--tokens", "2T", "--gpu", "a100", "--json")
    assert said.exit_code == 0
    facts = json.loads(said.stdout.splitlines()[-1])
    assert facts["parameters"] == 6_738_415_616
    assert facts["flops"] > 6 * facts["parameters"] * 2e12
    assert facts["fits"] is True
    assert all(facts[key] > 0 for key in ("gpu_hours", "energy_mwh", "tco2eq", "memory_bytes"))


def test_table_2_row_by_row(say) -> None:
    rows = json.loads(say("plan", "--paper", "--json").stdout)["rows"]
    assert [row["tco2eq"] for row in rows] == [31.22, 62.44, 153.90, 291.42]
    text = say("plan", "--paper").stdout
    assert all(figure in text for figure in ("31.22", "62.44", "153.90", "291.42", "539.00", "0.4235"))


PLAN = ("plan", "--model", "7b", "--tokens", "2T", "--gpu", "a100", "--gpus", "64", "--json")


def facts_of(say, *options: object) -> dict:
    said = say(*PLAN, *options)
    assert said.exit_code == 0, said.stderr
    return json.loads(said.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("option", "default", "value", "scales"),
    [
        ("--pue", 1.1, 1.65, {"energy_mwh", "tco2eq", "pue"}),
        ("--grid", 0.385, 0.77, {"tco2eq", "grid_kg_per_kwh"}),
        ("--watts", 400, 200, {"energy_mwh", "tco2eq", "watts"}),
        ("--price", 2, 5, {"usd"}),
    ],
)
def test_costs_grow_with_their_option_and_nothing_else_does(
    say, option: str, default: float, value: float, scales: set[str]
) -> None:
    base, changed = facts_of(say), facts_of(say, option, value)
    ratio = value / default
    for name in scales:
        assert changed[name] == pytest.approx(ratio * base[name]), name
    assert {name for name in base if changed[name] != base[name]} == scales
    assert facts_of(say, option, default) == base


def test_half_the_mfu_is_twice_the_time(say) -> None:
    base, slower = facts_of(say), facts_of(say, "--mfu", 0.2)
    for name in ("gpu_hours", "energy_mwh", "tco2eq", "usd"):
        assert slower[name] == pytest.approx(2 * base[name]), name


def test_pue_and_grid_reach_table_2(say) -> None:
    base = json.loads(say("plan", "--paper", "--json").stdout)
    options = ("--pue", 2.2, "--grid", 0.77)
    doubled = json.loads(say("plan", "--paper", "--json", *options).stdout)
    assert (doubled["pue"], doubled["grid_kg_per_kwh"]) == (2.2, 0.77)
    assert doubled["total"]["energy_mwh"] == pytest.approx(2 * base["total"]["energy_mwh"])
    assert doubled["total"]["tco2eq"] == pytest.approx(4 * base["total"]["tco2eq"])
    assert "124.8" in say("plan", "--paper", *options).stdout  # four times the 31.22 t of 7B


@pytest.mark.parametrize(
    "arguments",
    [
        ["--paper"],
        ["--model", "70b", "--gpu", "h100", "--gpus", "2048"],
        ["--gpu", "rtx-4090", "--gpus", "1"],
    ],
)
def test_tables_fit_into_100_columns(say, arguments: list[str]) -> None:
    said = say("plan", *arguments)
    assert said.exit_code == 0
    assert max(len(line) for line in said.stdout.splitlines()) <= 100
    assert "…" not in said.stdout


def test_what_does_not_fit_says_what_would(say) -> None:
    said = say("plan", "--model", "70b", "--gpu", "rtx-4090", "--gpus", "8")
    assert "Nothing fits. What would, one change each: " in said.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "voodoo2"], "gpu: expected one of a100-sxm-80gb"),
        (["--tokens", "2X"], "tokens: expected a whole number such as 2T"),
        (["--gpus", "0"], "--gpus"),
        (["--mfu", "1.5"], "--mfu: expected a number less than or equal to 1, got 1.5"),
        (["--pue", "0.5"], "--pue"),
        (["--model", "70b", "--tp", "16", "--gpus", "16"], "n_kv_heads = 8, got 16"),
        (["--model", "9000b"], "one of nano, 7b"),
        (["--seq-len", "5000"], "at most the model's context of 4096"),
    ],
)
def test_mistakes_are_messages(say, arguments: list[str], message: str) -> None:
    said = say("plan", *arguments)
    assert said.exit_code == 2
    assert message in " ".join(said.stderr.split())
    assert "Traceback" not in said.stderr
