"""Counts with suffixes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from puna.core.errors import ConfigError
from puna.planning.quantities import parse_count, short_count


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2T", 2 * 10**12),
        ("500B", 500 * 10**9),
        ("1.4t", 1_400_000_000_000),
        ("4M", 4_000_000),
        ("0.5K", 500),
        ("2_000_000", 2_000_000),
        ("2,000", 2000),
        ("2e12", 2 * 10**12),
        (" 7 ", 7),
    ],
)
def test_counts_are_read(text: str, value: int) -> None:
    assert parse_count(text, where="tokens") == value


@pytest.mark.parametrize(
    "text", ["2X", "", "0", "-1T", "T", "2 T!", "1.5", "nan", "inf", "1e400", "2TT", "0T", "1e30"]
)
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"tokens: expected a whole number such as 2T"):
        parse_count(text, where="tokens")


@given(st.integers(1, 999), st.sampled_from("KMBT"))
def test_short_counts_are_read_back(number: int, suffix: str) -> None:
    value = parse_count(f"{number}{suffix}", where="tokens")
    assert short_count(value) == f"{number}{suffix}"
