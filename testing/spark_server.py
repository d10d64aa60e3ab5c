"""A Spark Connect server on this machine, for tests and benchmarks: `python -m testing.spark_server` runs one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from testing.ports import free_port
from testing.waiting import listens

#: Starting Java takes five seconds of CPU. Machines are loaded.
_LIMIT_SECONDS = 300


def lacking() -> str | None:
    """What Spark needs and this machine lacks; None when everything is there."""
    if find_spec("pyspark") is None:
        return "needs pyspark (the extra `spark`)"
    if shutil.which("java") is None:
        return "needs Java 17"
    return None


@contextmanager
def spark_server(
    cores: int = 2, memory: str = "1g", java_options: str = "", configuration: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The URL of a server that runs until the end of the block."""
    import pyspark

    port = free_port()
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": str(port),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.sql.shuffle.partitions": str(2 * cores),
        "spark.ui.enabled": "false",
        "spark.driver.extraJavaOptions": java_options,
        **(configuration or {}),
    }
    with TemporaryDirectory(prefix="perennial-spark-server-") as folder:
        options = [part for name, value in settings.items() for part in ("--conf", f"{name}={value}")]
        home = Path(pyspark.__file__).parent
        environ = os.environ | {
            "SPARK_HOME": str(home),
            "SPARK_LOCAL_DIRS": folder,
            "PYSPARK_PYTHON": sys.executable,
        }
        submit = [f"{home}/bin/spark-submit", "--master", f"local[{cores}]", "--driver-memory", memory, *options]
        submit += ["--class", "org.apache.spark.sql.connect.service.SparkConnectServer", "spark-internal"]
        log = Path(folder, "server.log")
        with log.open("w") as output:
            server = subprocess.Popen(
                submit, stdout=output, stderr=output, cwd=folder, env=environ, start_new_session=True
            )
        try:
            _wait(server, port, log)
            yield f"sc://127.0.0.1:{port}"
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)


def _wait(server: subprocess.Popen, port: int, log: Path) -> None:
    end = time.monotonic() + _LIMIT_SECONDS
    while time.monotonic() < end and server.poll() is None:
        if listens(port):
            return
        time.sleep(0.2)
    raise RuntimeError(f"The Spark Connect server did not start:\n{log.read_text()[-3000:]}")


if __name__ == "__main__":
    # Leave the block, and with it Java, also when the process is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with spark_server() as url:
        print(url, flush=True)
        signal.pause()
