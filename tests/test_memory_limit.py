"""The limit of memory of a block."""

import sys

import pytest

from training.memory_limit import memory_limit

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Only Linux limits the memory of a block")


def test_blocks_of_several_threads_leave_no_limit_in_whatever_order_they_end() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    first, second = memory_limit(2**30), memory_limit(2**30)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert resource.getrlimit(resource.RLIMIT_DATA) != before
    second.__exit__(None, None, None)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
