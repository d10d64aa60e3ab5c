"""Gives memory that has been freed back to the system."""

import ctypes

#: Of the GNU C library; other C libraries have none and need none.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)


def return_freed_memory() -> None:
    """Without this the C library keeps nearly all memory that ONNX Runtime frees, for later use by this process.

    Takes about a millisecond per megabyte. Other threads go on meanwhile.
    """
    if _trim is not None:
        _trim(0)
