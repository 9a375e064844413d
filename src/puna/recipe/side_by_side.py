"""Independent stages at the same time, each in a process of its own with its share of the threads.

A small model cannot keep several threads busy in one matrix product; two processes of one thread each read a sixth
more tokens a second than one process of two (docs/decisions/0030). Results do not depend on who ran beside whom.
"""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from typing import Any

import torch
from rich.console import Console

from puna.core.devices import add_peak_rss, peak_rss_bytes
from puna.core.errors import Preempted, RecipeError, WorkerError
from puna.core.progress import Reporter

__all__ = ["Job", "run_side_by_side"]

Job = Callable[..., Any]
"""A picklable call that takes one more keyword, `reporter`; what it leaves is on disk."""

PRELOADED = "puna.recipe.figure4"
"""Imported once by the server that every worker is forked from, so that a worker starts in milliseconds."""

STOP_SECONDS = 10.0
"""A worker that was asked to stop is killed after this long."""


def run_side_by_side(
    jobs: Mapping[str, Job],
    *,
    reporter: Reporter,
    after: Mapping[str, Collection[str]] | None = None,
    n_planned: int | None = None,
) -> None:
    """Run every job; as many at once as torch has threads here, one after another where that is one.

    Args:
        jobs: By the name that their lines on the screen begin with. Started in this order, each once what it waits for
            is done.
        after: The jobs among these that a job waits for; they stand before it.
        n_planned: Jobs that the threads are shared among, where some of them need not run this time; None is all.
    Raises:
        RecipeError: what the first job that failed raised; the others are stopped, and resume next time.
        WorkerError: a worker was killed, by the system for its memory most likely, or failed in a way
            nobody foresaw.
    """
    n_threads = torch.get_num_threads()
    n_at_once = min(n_planned or len(jobs), n_threads)
    if n_at_once < 2:
        for job in jobs.values():
            job(reporter=reporter)
        return
    waiting = [(name, job, set((after or {}).get(name, ()))) for name, job in jobs.items()]
    with reporter.stage(f"side by side: {', '.join(jobs)}"):
        _run(waiting, n_at_once, n_threads // n_at_once, is_silent=reporter.is_silent)


def _run(
    waiting: list[tuple[str, Job, set[str]]], n_at_once: int, n_threads: int, *, is_silent: bool
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([PRELOADED])
    precision = torch.get_float32_matmul_precision()
    running: dict[Connection, tuple[str, ForkServerProcess]] = {}
    peaks: list[int] = []
    try:
        while waiting or running:
            ready = [entry for entry in waiting if not entry[2]][: n_at_once - len(running)]
            for entry in ready:
                waiting.remove(entry)
                name, job, _ = entry
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_work, args=(theirs, name, job, n_threads, precision, is_silent), name=name
                )
                process.start()
                theirs.close()
                running[ours] = (name, process)
            for pipe in wait(list(running)):
                assert isinstance(pipe, Connection)
                name, process = running[pipe]
                peaks.append(_finished(pipe, name, process))
                del running[pipe]
                for _, _, blockers in waiting:
                    blockers.discard(name)
    finally:
        _stop([process for _, process in running.values()])
    add_peak_rss(sum(sorted(peaks)[-n_at_once:]))


def _finished(pipe: Connection, name: str, process: ForkServerProcess) -> int:
    """The peak memory of a worker that ended well; its error otherwise."""
    try:
        outcome = pipe.recv()
    except EOFError:
        process.join()
        raise WorkerError(
            where=name,
            expected="a process that ends by itself",
            got=f"one that was killed (exit code {process.exitcode})",
            fix="Most likely memory ran out: see the system's log, or use --threads 1. The same command resumes "
            "from here.",
        ) from None
    finally:
        pipe.close()
    process.join()
    if isinstance(outcome, int):
        return outcome
    if isinstance(outcome, str):
        sys.stderr.write(outcome)
        last = outcome.strip().splitlines()[-1]
        fix = "This is a mistake in the program: please report it with the lines above."
        raise WorkerError(where=name, expected="no such failure", got=last, fix=fix)
    raise outcome


def _stop(processes: list[ForkServerProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _work(pipe: Connection, name: str, job: Job, n_threads: int, precision: str, is_silent: bool) -> None:
    """Body of a worker: answers with its peak memory in bytes, a RecipeError, or the text of another failure.

    Args:
        precision: Of float32 matrix products, as this run's machine set it for the parent.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(n_threads)
    torch.set_float32_matmul_precision(precision)
    console = Console(stderr=True, force_terminal=False, width=200)
    reporter = Reporter(console, is_silent=is_silent, prefix=f"  {name}: ")
    try:
        job(reporter=reporter)
        outcome: object = peak_rss_bytes()
    except (RecipeError, Preempted) as error:
        outcome = error
    except KeyboardInterrupt:  # the parent had it too, and says so
        os._exit(128 + signal.SIGINT)
    except BaseException:
        outcome = traceback.format_exc()
    with suppress(BrokenPipeError):
        pipe.send(outcome)


def _end_with_parent() -> None:
    """A run that was killed leaves no worker behind that goes on writing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
