"""Data order: every item once per epoch, and any step on request."""

from hypothesis import given
from hypothesis import strategies as st

from puna.training.order import ShuffledOrder


@given(n_items=st.integers(1, 40), batch_size=st.integers(1, 17), seed=st.integers(0, 5))
def test_each_epoch_is_a_permutation(n_items: int, batch_size: int, seed: int) -> None:
    order = ShuffledOrder(n_items, batch_size=batch_size, seed=seed, n_epochs=3)
    assert order.n_steps is not None
    drawn = [item for step in range(order.n_steps) for item in order.batch(step)]
    assert len(drawn) == 3 * n_items
    for epoch in range(3):
        assert sorted(drawn[epoch * n_items : (epoch + 1) * n_items]) == list(range(n_items))


def test_a_step_is_the_same_whenever_it_is_asked_for() -> None:
    first, second = (ShuffledOrder(100, batch_size=8, seed=1) for _ in range(2))
    forward = [first.batch(step) for step in range(60)]
    assert [second.batch(step) for step in reversed(range(60))] == forward[::-1]


def test_epochs_and_seeds_differ() -> None:
    order = ShuffledOrder(64, batch_size=64, seed=1)
    assert order.batch(0) != order.batch(1)
    assert order.batch(0) != ShuffledOrder(64, batch_size=64, seed=2).batch(0)


def test_micro_batches_join_to_the_batch() -> None:
    order = ShuffledOrder(100, batch_size=10, seed=0)
    pieces = order.micro_batches(3, 4)
    assert [len(piece) for piece in pieces] == [4, 4, 2]
    assert [item for piece in pieces for item in piece] == order.batch(3)


def test_fractional_epochs_end_early() -> None:
    order = ShuffledOrder(10, batch_size=4, seed=0, n_epochs=0.5)
    assert order.n_steps == 2
    assert [len(order.batch(step)) for step in range(2)] == [4, 1]
