"""The soak of benchmarks/soak.py, small. SOAK_REQUESTS=200000 runs the whole of it."""

import os
import shutil
from pathlib import Path

import pytest

from benchmarks.soak import soak, table

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "4000"))
WHOLE = 200_000


@pytest.mark.long
@pytest.mark.redis
@pytest.mark.timeout(300 + REQUESTS // 50)
def test_no_healthy_worker_fails_an_answer(tmp_path: Path) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on the PATH")
    swaps, rollbacks = (max(2, 50 * REQUESTS // WHOLE), max(1, 10 * REQUESTS // WHOLE))
    run = soak(tmp_path, REQUESTS, 100 if REQUESTS < WHOLE else 250, swaps, rollbacks)
    print(f"\n{table(run)}")
    assert len(run.answers) >= REQUESTS
    assert run.failed() == []
    happened = [what for what, _, _ in run.events]
    assert happened.count("swap") == swaps
    assert happened.count("rollback") == rollbacks
    assert {"registry outage", "Redis restart", "worker killed", "after"} <= set(happened)
