"""Reading ahead changes no batch; collections come when they are due."""

import gc
import threading

import pytest

from puna.training.speed import prefetching, scheduled_collection


def test_batches_are_the_same_in_any_order_and_the_next_one_is_read_ahead() -> None:
    read: list[tuple[int, bool]] = []
    has_read = threading.Semaphore(0)

    def micro_batches(step: int) -> list[int]:
        read.append((step, threading.current_thread() is threading.main_thread()))
        has_read.release()
        return [step, step * step]

    with prefetching(micro_batches, n_steps=6, is_on=True) as batches:
        for step in (0, 1, 2, 0, 4, 5):  # back and forth, as after a rollback
            assert batches(step) == [step, step * step]
    assert (1, False) in read[:2]
    assert not any(is_main for _, is_main in read)
    assert all(step < 6 for step, _ in read)
    for _ in read:
        assert has_read.acquire(timeout=5)


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


class Cycle:
    n_alive = 0

    def __init__(self) -> None:
        self.itself = self
        Cycle.n_alive += 1

    def __del__(self) -> None:
        Cycle.n_alive -= 1


def test_garbage_waits_for_its_update() -> None:
    with scheduled_collection(3) as collect:
        assert not gc.isenabled()
        Cycle()
        alive = []
        for n_done in (1, 2, 3):
            collect(n_done)
            alive.append(Cycle.n_alive)
    assert alive == [1, 1, 0]
    assert gc.isenabled()
    with scheduled_collection(None):
        assert gc.isenabled()
