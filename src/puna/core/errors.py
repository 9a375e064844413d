"""Every error a user can cause, each saying what was expected, what came, where, and what to do."""

import functools

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "NumericsError",
    "Preempted",
    "ProtocolError",
    "RecipeError",
    "RunLockedError",
    "ShapeError",
    "StorageError",
    "WorkerError",
]


class RecipeError(Exception):
    """The user can mend this; the command line prints it as one message and exits with code 2."""

    exit_code = 2

    def __init__(self, *, where: str, expected: str, got: str, fix: str) -> None:
        self.where = where
        self.expected = expected
        self.got = got
        self.fix = fix
        super().__init__(f"{where}: expected {expected}, got {got}. {fix}")

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel between processes whole."""
        return functools.partial(type(self), **self.__dict__), ()


class ConfigError(RecipeError):
    """A recipe, an option or a setting is wrong: correct the named key."""


class DataError(RecipeError):
    """An input file or record is missing or broken: correct the named file and line."""


class ShapeError(RecipeError):
    """Sizes do not fit each other, such as a prompt longer than the context."""


class CheckpointError(RecipeError):
    """A model or training-state file is truncated, altered or of another architecture: restore it."""


class NumericsError(RecipeError):
    """A loss or gradient stopped being finite: lower the learning rate or inspect the named batch."""


class ProtocolError(RecipeError):
    """An annotation or a dialog breaks the protocol, such as two user turns in a row."""


class RunLockedError(RecipeError):
    """Another process is writing this output folder: wait for it or choose another folder."""


class StorageError(RecipeError):
    """The disk is full or cannot be written: free space and run the same command again."""


class WorkerError(RecipeError):
    """A process that ran one stage beside others was killed or broke: run the same command again."""


class Preempted(Exception):
    """A signal asked to stop: the state is saved, and the same command resumes from there."""

    def __init__(self, signal_name: str, done: str = "") -> None:
        """Such as "update 7 of 20"; without a place, what was finished is kept and nothing else."""
        super().__init__(signal_name, done)
        self.signal_name = signal_name
        self.done = done

    @property
    def exit_code(self) -> int:
        """0 where a scheduler wants the machine back, 130 after Ctrl-C, as shells count."""
        return 130 if self.signal_name == "SIGINT" else 0

    def __str__(self) -> str:
        kept = (
            f" after {self.done}; the training state is saved" if self.done else "; what is finished is kept"
        )
        return f"stopped by {self.signal_name}{kept}. Run the same command again to resume."
