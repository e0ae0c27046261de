"""Keep freed memory instead of handing it back to the kernel at every step."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # names of glibc's mallopt(3)


def keep_freed_memory(pad_bytes: int = 256 << 20) -> bool:
    """Tell glibc to reuse big blocks; return False where there is no glibc (nothing is changed then).

    A training step allocates and frees the same hundreds of megabytes again and again. By default glibc
    returns each block to the kernel, and every step pays for fresh pages: several times slower on virtual
    machines. Call it before the first large allocation.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, pad_bytes))
    return all(mallopt(name, value) == 1 for name, value in settings)
