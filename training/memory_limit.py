"""Limits the memory that a block of code may take."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DATA = re.compile(r"^VmData:\s+(\d+) kB$", re.MULTILINE)


@contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Let this process take at most `size` bytes more than it has, until the block ends. Allocations beyond fail.

    That is a MemoryError in Python and in Arrow; other libraries may end the process. The limit is for all threads.
    Only Linux has such a limit; elsewhere nothing is limited.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    found = _DATA.search(Path("/proc/self/status").read_text())
    assert found
    before = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(found[1]) * 1024 + size
    others = [each for each in (soft, hard) if each != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([limit, *others]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
