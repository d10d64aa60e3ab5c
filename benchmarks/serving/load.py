"""Two kinds of load: as many requests as possible (wrk), and a steady rate; its latency includes waiting."""

import asyncio
import json
import math
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

CONNECTIONS = 8
SCRIPT = """
local bodies, paths, at = {{}}, {{}}, 0
for line in io.lines("{bodies}") do bodies[#bodies + 1] = line end
for line in io.lines("{paths}") do paths[#paths + 1] = line end
wrk.method, wrk.headers["Content-Type"] = "POST", "application/json"
request = function()
  at = at + 1
  return wrk.format(nil, paths[at % #paths + 1], nil, bodies[at % #bodies + 1])
end
"""
UNIT = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Load:
    per_second: float
    #: Milliseconds.
    p50: float
    p99: float
    failed: int
    #: Microseconds of CPU per request, over all processes of the server; steadier than the rate on a busy machine.
    cpu: float = 0.0


def full(
    url: str,
    bodies: list[Any],
    seconds: int,
    folder: Path,
    connections: int = CONNECTIONS,
    paths: Sequence[str] = (),
) -> Load:
    """As many requests as `connections` callers can make one after the other; they take turns on `paths`, if any."""
    (folder / "bodies").write_text("".join(json.dumps(body) + "\n" for body in bodies))
    (folder / "paths").write_text(
        "".join(f"{path}\n" for path in paths or [urlsplit(url)._replace(scheme="", netloc="").geturl()])
    )
    (folder / "load.lua").write_text(SCRIPT.format(bodies=folder / "bodies", paths=folder / "paths"))
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(folder / "load.lua"), url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    latency = {p: float(v) * UNIT[u] for p, v, u in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)", said)}
    rate, bad = re.search(r"Requests/sec:\s+([\d.]+)", said), re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    assert rate, said
    return Load(float(rate[1]), latency["50"], latency["99"], int(bad[1]) if bad else 0)


def steady(
    url: str,
    bodies: list[Any],
    per_second: float,
    seconds: float,
    connections: int = 32,
    paths: Sequence[str] = (),
) -> Load:
    """Requests at a fixed rate; latency counts from when a request was due, not from when it could be sent.

    They take turns on `paths`, if any.
    """
    import uvloop

    return uvloop.run(_steady(url, bodies, per_second, seconds, connections, paths))


async def _steady(
    url: str, bodies: list[Any], per_second: float, seconds: float, connections: int, paths: Sequence[str]
) -> Load:
    parts = urlsplit(url)
    due = [i / per_second for i in range(int(per_second * seconds))]
    paths = paths or [parts.path]
    texts = [
        _request(paths[i % len(paths)], json.dumps(bodies[i % len(bodies)]).encode())
        for i in range(math.lcm(len(bodies), len(paths)))
    ]
    took: list[float] = []
    failed, at = 0, 0
    began = time.perf_counter() + 0.2

    async def caller() -> None:
        nonlocal at, failed
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        while at < len(due):
            mine, at = at, at + 1
            moment = began + due[mine]
            await asyncio.sleep(max(0.0, moment - time.perf_counter()))
            writer.write(texts[mine % len(texts)])
            head = await reader.readuntil(b"\r\n\r\n")
            size = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            await reader.readexactly(int(size[1]) if size else 0)
            took.append(time.perf_counter() - moment)
            failed += not head.startswith(b"HTTP/1.1 200")
        writer.close()

    await asyncio.gather(*(caller() for _ in range(connections)))
    p50, p99 = np.percentile(np.array(took) * 1e3, [50, 99])
    return Load(len(took) / (time.perf_counter() - began), float(p50), float(p99), failed)


def _request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body
