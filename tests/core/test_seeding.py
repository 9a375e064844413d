"""Derived seeds are stable, distinct by name, and start the streams they name."""

import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from puna.core.seeding import derive_seed, generator, rng

NAMES = st.lists(st.text(max_size=5) | st.integers(-5, 99), max_size=3)


def test_golden_value() -> None:
    """A change here changes every run of every recipe."""
    assert derive_seed(0, "sft", 3) == 920463525924340926


@given(seed=st.integers(0, 2**63 - 1), names=NAMES)
def test_fits_63_bits_and_repeats(seed: int, names: list[str | int]) -> None:
    derived = derive_seed(seed, *names)
    assert 0 <= derived < 2**63
    assert derived == derive_seed(seed, *names)


@given(first=NAMES, second=NAMES)
def test_other_names_give_other_seeds(first: list[str | int], second: list[str | int]) -> None:
    """Names are kept apart: ("ab",) from ("a", "b"), 3 from "3". A collision has odds of 2**-63."""
    assert (derive_seed(0, *first) == derive_seed(0, *second)) == (first == second)


def test_generators_start_at_the_derived_seed() -> None:
    assert generator(1, "a").initial_seed() == derive_seed(1, "a")
    assert (
        torch.rand(3, generator=generator(1, "a")).tolist()
        == torch.rand(3, generator=generator(1, "a")).tolist()
    )
    assert rng(1, "a").random() == random.Random(derive_seed(1, "a")).random()
