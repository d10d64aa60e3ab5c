"""A Redis server of a test's own."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testing.ports import free_port


@contextmanager
def running_redis(folder: Path) -> Iterator[int]:
    """The port of a server that ends with the context. Skips the test when there is no redis-server on the PATH."""
    server = shutil.which("redis-server") or pytest.skip("redis-server is not on the PATH")
    port = free_port()
    running = subprocess.Popen(
        [server, "--port", str(port), "--save", "", "--dir", str(folder)], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        running.kill()
        running.wait()
