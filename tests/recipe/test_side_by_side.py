"""Stages in processes of their own: all run, with their share of threads; errors, kills and orphans."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from puna.core.devices import peak_rss_bytes
from puna.core.errors import DataError, RecipeError, WorkerError
from puna.core.progress import Reporter, quiet
from puna.recipe.side_by_side import run_side_by_side


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def write_facts(path: Path, *, reporter: Reporter) -> None:
    reporter.log("working")
    path.write_text(f"{os.getpid()} {torch.get_num_threads()}")


def meet(mine: Path, other: Path, *, reporter: Reporter) -> None:
    """Ends only when the other is there too."""
    mine.touch()
    deadline = time.monotonic() + 60
    while not other.exists():
        assert time.monotonic() < deadline, "nobody came"
        time.sleep(0.01)


def complain(*, reporter: Reporter) -> None:
    raise DataError(where="line 7", expected="a row", got="none", fix="Mend it.")


def sleep_long(started: Path, *, reporter: Reporter) -> None:
    started.write_text(str(os.getpid()))
    time.sleep(600)


def die(*, reporter: Reporter) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def divide_by_zero(*, reporter: Reporter) -> None:
    print(1 // 0)


def hold(n_bytes: int, *, reporter: Reporter) -> None:
    assert bytearray(n_bytes).rfind(b"\1", 0, 1) == -1
    block = bytearray(os.urandom(1)) * n_bytes
    assert len(block) == n_bytes


def test_all_run_in_processes_of_their_own_with_their_share_of_threads(tmp_path: Path) -> None:
    jobs = {str(i): partial(write_facts, tmp_path / str(i)) for i in range(3)}
    run_side_by_side(jobs, reporter=quiet())
    facts = [(tmp_path / name).read_text().split() for name in jobs]
    assert len({pid for pid, _ in facts} | {str(os.getpid())}) == 4
    assert [threads for _, threads in facts] == ["1", "1", "1"]


def write_precision(path: Path, *, reporter: Reporter) -> None:
    path.write_text(torch.get_float32_matmul_precision())


def test_workers_compute_in_the_precision_of_the_machine(tmp_path: Path) -> None:
    """The server that they are forked from may be older than the setting, so each is told."""
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("high", "highest"):
            torch.set_float32_matmul_precision(precision)
            jobs = {name: partial(write_precision, tmp_path / name) for name in "ab"}
            run_side_by_side(jobs, reporter=quiet())
            assert {(tmp_path / name).read_text() for name in "ab"} == {precision}
    finally:
        torch.set_float32_matmul_precision(before)


def test_two_really_run_at_the_same_time(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    run_side_by_side({"a": partial(meet, a, b), "b": partial(meet, b, a)}, reporter=quiet())
    assert a.exists()
    assert b.exists()


def test_one_thread_means_one_after_another_here(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    run_side_by_side(
        {"x": partial(write_facts, tmp_path / "x"), "y": partial(write_facts, tmp_path / "y")},
        reporter=quiet(),
    )
    assert {(tmp_path / name).read_text() for name in "xy"} == {f"{os.getpid()} 1"}


def test_an_error_arrives_whole_and_the_others_are_stopped(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with pytest.raises(DataError) as caught:
        run_side_by_side({"long": partial(sleep_long, started), "bad": complain}, reporter=quiet())
    assert (caught.value.where, caught.value.expected, caught.value.got, caught.value.fix) == (
        "line 7",
        "a row",
        "none",
        "Mend it.",
    )
    assert not started.exists() or not is_alive(int(started.read_text()))


def test_a_killed_worker_is_reported_by_name() -> None:
    with pytest.raises(WorkerError, match=r"^doomed: .*killed \(exit code (-9|255)\)"):
        run_side_by_side({"doomed": die, "fine": partial(hold, 10)}, reporter=quiet())


def test_an_unforeseen_failure_shows_its_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WorkerError, match="ZeroDivisionError") as caught:
        run_side_by_side({"wrong": divide_by_zero, "fine": partial(hold, 10)}, reporter=quiet())
    assert isinstance(caught.value, RecipeError)
    assert "in divide_by_zero" in capfd.readouterr().err


def test_workers_count_in_the_peak_memory() -> None:
    size = 2**28
    before = peak_rss_bytes()
    run_side_by_side({"a": partial(hold, size), "b": partial(hold, size)}, reporter=quiet())
    assert peak_rss_bytes() > 2 * size
    assert peak_rss_bytes() >= before


def test_no_worker_outlives_a_killed_run(tmp_path: Path) -> None:
    started = [tmp_path / "a", tmp_path / "b"]
    code = (
        "import sys; from functools import partial; from pathlib import Path; import torch\n"
        "from recipe.test_side_by_side import sleep_long, run_side_by_side, quiet\n"
        "if __name__ == '__main__':\n"
        "    torch.set_num_threads(2)\n"
        "    run_side_by_side({p: partial(sleep_long, Path(p)) for p in sys.argv[1:]}, reporter=quiet())\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    process = subprocess.Popen([sys.executable, str(script), *map(str, started)], env=environment)
    until(lambda: all(path.exists() and path.read_text() for path in started))
    process.kill()
    process.wait()
    workers = [int(path.read_text()) for path in started]
    until(lambda: not any(map(is_alive, workers)))
    assert len({*workers, process.pid}) == 3, "they were processes of their own"


def until(holds, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
