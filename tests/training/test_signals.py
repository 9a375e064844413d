"""Signals are noted while the body runs and mean what they meant before afterwards."""

import os
import signal
import threading

from puna.training.signals import stop_requests


def test_signals_are_noted_by_name() -> None:
    for number in (signal.SIGTERM, signal.SIGUSR1):
        with stop_requests() as request:
            assert not request.is_made
            os.kill(os.getpid(), number)
            assert request.is_made
            assert request.name == number.name


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
