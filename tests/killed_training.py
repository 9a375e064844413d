"""A training in a child process that dies at a counted moment, so that no clock decides how far it comes."""

import os
import signal
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["die_at_backward"]


def die_at_backward(train: Callable[[], object], n: int) -> None:
    """Train in a fork that gets SIGKILL as its n-th backward pass begins.

    Raises:
        AssertionError: the training ended otherwise, such as before that pass.
    """
    child = os.fork()
    if child == 0:
        _kill_at_backward(n)
        try:
            train()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the training ended by itself before backward pass {n}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def _kill_at_backward(n: int) -> None:
    backward = torch.Tensor.backward
    n_begun = 0

    def counted(loss: torch.Tensor, *arguments: Any, **options: Any) -> None:
        nonlocal n_begun
        n_begun += 1
        if n_begun == n:
            os.kill(os.getpid(), signal.SIGKILL)
        backward(loss, *arguments, **options)

    torch.Tensor.backward = counted  # type: ignore[method-assign]
