"""How the C library treats memory that a training step frees and the next one asks for again."""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask glibc to keep what is freed, for the life of the process, where it would give it back to the kernel.

    Given back, each page of the next step's tensors is faulted in and zeroed anew: a tenth of a CPU training step
    (docs/training_speed.md). Peaks do not grow. Elsewhere than on glibc nothing happens.

    Returns:
        Whether it was done.
    """
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    return bool(
        set_option(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD) and set_option(_M_TRIM_THRESHOLD, _NEVER)
    )
