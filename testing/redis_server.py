"""A Redis server of a test's own."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from testing.ports import free_port
from testing.waiting import eventually


@dataclass
class RedisServer:
    """Its data lie in `folder`. `options`: of the command line."""

    folder: Path
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def start(self, *more: str, wait: bool = True) -> None:
        """`more`: options for this start alone. `wait`: until it answers; else it may still be loading its data."""
        server = shutil.which("redis-server") or pytest.skip("redis-server is not on the PATH")
        command = [server, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        self.process = subprocess.Popen([*command, *self.options, *more], stdout=subprocess.DEVNULL)
        if wait:
            self.wait_until_it_answers()

    def wait_until_it_answers(self) -> None:
        eventually(self._answers, 60)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def kill(self) -> None:
        """As an outage does: with SIGKILL."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def forget(self) -> None:
        """Delete the files of its data. It must not run."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def running_redis(folder: Path) -> Iterator[int]:
    """The port of a server that ends with the context. Skips the test when there is no redis-server on the PATH."""
    server = RedisServer(folder)
    server.start()
    try:
        yield server.port
    finally:
        server.kill()
