"""Requests at a steady rate while everything happens around the service: swaps, rollbacks, a registry that is gone, a
Redis that restarts, a worker that is killed.

    make bench-soak                          # 200,000 requests at 250/s, 50 swaps, 10 rollbacks: a quarter of an hour
    make bench-soak ARGS='--requests 10000 --swaps 5 --rollbacks 2'

Requests start by the clock whether or not those before are answered, and their time counts from when they should have
started. Two replicas of the service take them in turn; a replica whose worker was killed gets none until it is ready
again, as behind a load balancer, and what it was answering when it died is counted apart. Prints latency before, during
and after each kind of event, and fails when a healthy worker failed an answer.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from testing.ports import free_port
from testing.serving_artifacts import CUSTOMER, EVENT, TERMINAL
from testing.serving_stack import (
    MlflowServer,
    Process,
    Service,
    Stack,
    changed,
    fill_online_store,
    running_mlflow,
    running_stack,
    service_process,
)
from testing.waiting import eventually
from training.contract.messages import RollbackInputs
from training.contract.model_spec import ModelSpec
from training.settings import Settings
from training.steps import rollback

MODEL = "card_fraud"
#: Seconds that the registry is gone, and between two events.
OUTAGE, PAUSE = 8.0, 1.0
TIMEOUT = 30.0
#: Answers from defaults while Redis is away; and none refused for lateness, for a soak is about what goes wrong and not
#: about load. How late they were is in the table.
POLICY: dict[str, Any] = {
    "serving_store_down": "defaults",
    "serving_deadline_seconds": TIMEOUT,
    "serving_maximum_lag_seconds": TIMEOUT,
    "serving_maximum_in_flight": 10_000,
}


@dataclass(frozen=True)
class Answer:
    """`status` 0: no answer came. Times in seconds since the load began."""

    began: float
    seconds: float
    status: int
    url: str

    @property
    def ended(self) -> float:
        return self.began + self.seconds


@dataclass
class Soak:
    """What was asked and answered, and what happened when."""

    requests: int
    rate: float
    answers: list[Answer] = field(default_factory=list)
    #: (what, from, to), in seconds since the load began.
    events: list[tuple[str, float, float]] = field(default_factory=list)
    #: url → when its worker was dead.
    dead: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    started: float = 0.0

    def now(self) -> float:
        return time.monotonic() - self.started

    @contextmanager
    def event(self, what: str) -> Iterator[None]:
        begun = self.now()
        try:
            yield
        finally:
            self.events.append((what, begun, self.now()))

    def of_dead_workers(self) -> list[Answer]:
        return [a for a in self.answers if a.status != 200 and self._dead(a)]

    def failed(self) -> list[Answer]:
        """Answers that a healthy worker failed."""
        return [a for a in self.answers if a.status != 200 and not self._dead(a)]

    def _dead(self, answer: Answer) -> bool:
        windows = self.dead.get(answer.url, [])
        return any(answer.began < end and answer.ended > begin for begin, end in windows)

    async def load(self, urls: list[str], happening: threading.Thread) -> None:
        """Ask at the rate, in turn those that are not down: all requests, and for a while after the last event."""
        chance, timeout = random.Random(0), aiohttp.ClientTimeout(total=TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=256)) as session:
            self.started, asked = time.monotonic(), set[asyncio.Task[None]]()
            number, last = 0, self.requests
            while number < last:
                if happening.is_alive():
                    last = max(last, number + self.requests // 20)
                due = number / self.rate
                if (early := due - self.now()) > 0:
                    await asyncio.sleep(early)
                healthy = [url for url in urls if url not in self.down]
                known = {"customer_id": CUSTOMER, "terminal_id": TERMINAL} if number % 2 else {}
                known_to_all = {"customer_id": chance.randrange(1000), "amount": round(chance.uniform(0, 100), 2)}
                body = EVENT | {"transaction_id": number} | known_to_all | known
                task = asyncio.create_task(self._ask(session, healthy[number % len(healthy)], body, due))
                number += 1
                asked.add(task)
                task.add_done_callback(asked.discard)
            await asyncio.gather(*asked)

    async def _ask(self, session: aiohttp.ClientSession, url: str, body: dict[str, object], due: float) -> None:
        status = 0
        try:
            async with session.post(f"{url}/predict", json=body) as answer:
                await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            pass
        self.answers.append(Answer(due, self.now() - due, status, url))


def soak(folder: Path, requests: int, rate: float, swaps: int, rollbacks: int) -> Soak:
    """Run it in `folder`. Needs redis-server on the PATH."""
    port = free_port()
    server = str(shutil.which("redis-server"))
    # It keeps what it holds over a restart.
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes"]
    with (
        Process(command, dict(os.environ), folder / "redis.log") as redis,
        running_mlflow(folder) as mlflow,
        running_stack(folder, tracking_uri=mlflow.url, online_store=f"redis://127.0.0.1:{port}/0", **POLICY) as stack,
    ):
        eventually(lambda: _fills(stack.settings, stack.spec), 30)
        with service_process(changed(stack.settings, serving_state=str(folder / "second"))) as second:
            return _run(stack, second, (mlflow, redis), Soak(requests, rate), swaps, rollbacks)


def _fills(settings: Settings, spec: ModelSpec) -> bool:
    try:
        fill_online_store(settings, spec)
    except Exception:  # Redis is still starting
        return False
    return True


def _run(
    stack: Stack, second: Service, away: tuple[MlflowServer, Process], run: Soak, swaps: int, rollbacks: int
) -> Soak:
    services = [stack.service, second]
    versions = [stack.register(bias=-0.9 - number / 100).version for number in range(3)]
    stack.registry.set_alias(MODEL, "champion", versions[0])
    for service in services:
        eventually(lambda service=service: service.serves(versions[0]), 120)
        eventually(service.ready, 60)
    settings = stack.planned([{"mode": "full"}], urls=",".join(service.url for service in services))
    events = _script(stack, services, away, run, versions, settings, swaps, rollbacks)
    problems: list[BaseException] = []

    def happen() -> None:
        quiet = 0.1 * run.requests / run.rate
        time.sleep(quiet)
        run.events.append(("before", 0.0, run.now()))
        left = 0.8 * run.requests / run.rate
        ends, end = time.monotonic() + left, len(events)
        try:
            for number, (what, event) in enumerate(events):
                with run.event(what):
                    event()
                # Spread over the time that there is.
                time.sleep(max(PAUSE / 4, (ends - time.monotonic()) / max(1, end - number) - PAUSE))
        except BaseException as error:
            problems.append(error)
        run.events.append(("after", run.now(), float("inf")))

    happening = threading.Thread(target=happen, daemon=True)

    async def both() -> None:
        happening.start()
        await run.load([service.url for service in services], happening)

    run.started = time.monotonic()
    asyncio.run(both())
    happening.join(120)
    if problems:
        raise problems[0]
    return run


def _script(
    stack: Stack,
    services: list[Service],
    away: tuple[MlflowServer, Process],
    run: Soak,
    versions: list[int],
    settings: Settings,
    swaps: int,
    rollbacks: int,
) -> list[tuple[str, Callable[[], None]]]:
    """All events in their order: swaps and rollbacks throughout, the accidents at a quarter, a half, three quarters."""
    mlflow, redis = away

    def served(version: int) -> None:
        for service in services:
            eventually(lambda service=service: service.serves(version), 30)

    def swap() -> None:
        now = stack.registry.state(MODEL).aliases["champion"]
        version = versions[(versions.index(now) + 1) % len(versions)]
        stack.registry.point(MODEL, [("previous", now), ("champion", version)])
        served(version)

    def roll_back() -> None:
        rollback.run(RollbackInputs(model=MODEL, reason=f"soak {run.now():.1f}"), settings)

    def outage() -> None:
        mlflow.signal(signal.SIGKILL)
        time.sleep(OUTAGE)
        mlflow.start()
        eventually(mlflow.answers, 60)

    def restart() -> None:
        redis.stop()
        time.sleep(1)
        redis.start()
        time.sleep(2)

    def kill() -> None:
        victim = services[1]
        begun = run.now()
        run.down.add(victim.url)
        assert victim.process is not None
        os.kill(victim.worker(), signal.SIGKILL)
        if victim.process.poll() is None:
            victim.signal(signal.SIGKILL)
        victim.start()
        eventually(victim.ready, 120)
        run.dead.setdefault(victim.url, []).append((begun, run.now()))
        run.down.discard(victim.url)

    moves: list[tuple[str, Callable[[], None]]] = [("swap", swap)] * swaps
    for number in range(rollbacks):
        moves.insert((number + 1) * len(moves) // (rollbacks + 1) + 1, ("rollback", roll_back))
    accidents = [("registry outage", outage), ("Redis restart", restart), ("worker killed", kill)]
    for number, accident in enumerate(accidents, 1):
        moves.insert(number * len(moves) // 4, accident)
    return moves


def table(run: Soak) -> str:
    """Latency of the requests that began during each kind of event, in ms."""
    lines = ["| | times | requests | failed | p50 | p99 | worst |", "|---|---|---|---|---|---|---|"]
    failed = set(map(id, run.failed()))
    kinds = ["before", *(kind for kind in dict.fromkeys(e[0] for e in run.events) if kind not in ("before", "after"))]
    for kind in (*kinds, "after", "all"):
        windows = [(begin, end) for what, begin, end in run.events if what == kind]
        during = [a for a in run.answers if kind == "all" or any(b <= a.began < e for b, e in windows)]
        if not during:
            continue
        answered = np.array([1000 * a.seconds for a in during if a.status == 200] or [np.nan])
        p50, p99 = np.percentile(answered, (50, 99))
        bad = sum(id(a) in failed for a in during)
        count = len(windows) if kind != "all" else ""
        lines.append(f"| {kind} | {count} | {len(during)} | {bad} | {p50:.1f} | {p99:.1f} | {answered.max():.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--rate", type=float, default=250.0)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--rollbacks", type=int, default=10)
    args = parser.parse_args()
    if shutil.which("redis-server") is None:
        sys.exit("redis-server is not on the PATH: `apt-get install redis-server`")
    with tempfile.TemporaryDirectory(prefix="perennial-soak-") as folder:
        run = soak(Path(folder), args.requests, args.rate, args.swaps, args.rollbacks)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    print(f"{len(run.answers)} requests at {args.rate:g}/s, two replicas, commit {commit or 'unknown'}\n")
    print(table(run))
    failed, died = run.failed(), len(run.of_dead_workers())
    print(f"\nFailed by healthy workers: {len(failed)}. Lost with the killed worker: {died}.")
    for answer in failed[:5]:
        print(f"  {answer}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
