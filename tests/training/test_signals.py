"""Signals are noted while the body runs and mean what they meant before afterwards."""

import os
import signal
import threading

import pytest

from puna.core.errors import Preempted
from puna.training.signals import preemptible, stop_requests


def test_signals_are_noted_by_name() -> None:
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        with stop_requests() as request:
            assert not request.is_made
            os.kill(os.getpid(), number)
            assert request.is_made
            assert request.name == number.name


def test_a_second_ctrl_c_stops_at_once() -> None:
    with stop_requests() as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_exit_code_tells_ctrl_c_from_a_scheduler() -> None:
    assert [Preempted(name).exit_code for name in ("SIGTERM", "SIGUSR1", "SIGINT")] == [0, 0, 130]


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_off_the_main_thread_nothing_changes() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def body() -> None:
        with stop_requests() as request:
            seen.append((signal.getsignal(signal.SIGTERM), request.is_made))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


def test_outside_a_loop_the_command_ends_at_once_and_well() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with (
        pytest.raises(Preempted, match="stopped by SIGTERM; what is finished is kept") as caught,
        preemptible(),
    ):
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.exit_code == 0
    assert signal.getsignal(signal.SIGTERM) == before
