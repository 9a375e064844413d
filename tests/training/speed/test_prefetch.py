"""Reading ahead changes no batch."""

import threading

import pytest

from puna.training.speed import prefetching


def test_batches_are_the_same_in_any_order_and_a_thread_reads_them() -> None:
    read: list[tuple[int, bool]] = []

    def micro_batches(step: int) -> list[int]:
        read.append((step, threading.current_thread() is threading.main_thread()))
        return [step, step * step]

    with prefetching(micro_batches, n_steps=6, is_on=True) as batches:
        for step in (0, 1, 2, 0, 4, 5):  # back and forth, as after a rollback
            assert batches(step) == [step, step * step]
    assert not any(is_main for _, is_main in read)
    assert all(step < 6 for step, _ in read)


def test_the_next_batch_is_read_before_it_is_asked_for() -> None:
    """Each step waits until the reader has been asked for the next one; the limit only ends a test that hangs."""
    begun = [threading.Event() for _ in range(5)]

    def micro_batches(step: int) -> list[int]:
        begun[step].set()
        return [step]

    with prefetching(micro_batches, n_steps=5, is_on=True) as batches:
        for step in range(4):
            batches(step)
            assert begun[step + 1].wait(timeout=300), f"batch {step + 1} was not read ahead"
            assert not any(event.is_set() for event in begun[step + 2 :]), "one ahead, no more"


def test_a_reader_s_error_comes_where_its_batch_is_asked_for() -> None:
    def micro_batches(step: int) -> list[int]:
        if step == 1:
            raise OSError("the disk is gone")
        return [step]

    with prefetching(micro_batches, n_steps=3, is_on=True) as batches:
        assert batches(0) == [0]
        with pytest.raises(OSError, match="the disk is gone"):
            batches(1)


def test_turned_off_it_is_the_reader_itself() -> None:
    def micro_batches(step: int) -> list[int]:
        return [step]

    with prefetching(micro_batches, n_steps=3, is_on=False) as batches:
        assert batches is micro_batches
