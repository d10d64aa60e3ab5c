"""Limits the memory that a block of code may take."""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DATA = re.compile(r"^VmData:\s+(\d+) kB$", re.MULTILINE)


_lock = threading.Lock()
#: The limits of this process without any block, one for each block that runs now: all are equal.
_without: list[tuple[int, int]] = []


@contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Let this process take at most `size` bytes more than it has, until the block ends. Allocations beyond fail.

    That is a MemoryError in Python and in Arrow; other libraries may end the process. The limit is for all threads. Of
    blocks in several threads the newest sets it, and it ends with the last of them. Only Linux has such a limit;
    elsewhere nothing is limited.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    with _lock:
        found = _DATA.search(Path("/proc/self/status").read_text())
        assert found
        before = soft, hard = _without[0] if _without else resource.getrlimit(resource.RLIMIT_DATA)
        limit = int(found[1]) * 1024 + size
        others = [each for each in (soft, hard) if each != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min([limit, *others]), hard))
        _without.append(before)
    try:
        yield
    finally:
        with _lock:
            _without.pop()
            if not _without:
                resource.setrlimit(resource.RLIMIT_DATA, before)
