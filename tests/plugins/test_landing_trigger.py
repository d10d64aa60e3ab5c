"""A real Airflow and a landing folder: every delivery gets exactly one data run, whatever is killed meanwhile."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.airflow_server import AirflowServer

pytestmark = [pytest.mark.airflow, pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[AirflowServer]:
    with AirflowServer(tmp_path).running() as server:
        yield server


def test_every_delivery_gets_exactly_one_run(airflow: AirflowServer) -> None:
    landing = airflow.home / "perennial" / "landing" / "card_payments"

    def land(name: str, content: str = "not parquet: the run fails, and that is its own affair") -> None:
        path = landing / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}")
        hidden.write_text(content)
        hidden.rename(path)

    def data_runs() -> list[str]:
        return [run["dag_run_id"].rpartition("_")[0] for run in airflow.runs("card_payments_data")]

    def all_done(count: int) -> bool:
        runs = airflow.runs("card_payments_data")
        return len(runs) >= count and all(run["state"] == "failed" for run in runs)

    # Landed before Airflow was there, in no order.
    for name in ("labels/2026-01-06", "events/2026-01-07", "events/2026-01-06", "events/2026-01-01_2026-01-05"):
        land(name)
    airflow.until(lambda: all_done(4), 240)
    expected = ["events_2026-01-01_2026-01-05_1", "events_2026-01-06_1", "labels_2026-01-06_1", "events_2026-01-07_1"]
    assert data_runs() == expected

    # While nobody watches: one is late, one is corrected, one is delivered again as it was.
    airflow.kill("triggerer")
    land("labels/2026-01-05")
    land("events/2026-01-06", "corrected")
    land("events/2026-01-07")
    time.sleep(2)
    airflow.start("triggerer", "--skip-serve-logs")
    airflow.until(lambda: all_done(7))
    expected += ["labels_2026-01-05_1", "events_2026-01-06_2", "events_2026-01-07_2"]
    assert data_runs() == expected

    # The scheduler dies somewhere between the file and the end of its run, again and again.
    for day, seconds in (("08", 2.0), ("09", 3.0), ("10", 4.5)):
        land(f"events/2026-01-{day}")
        time.sleep(seconds)
        airflow.kill("scheduler")
        airflow.start("scheduler", "--skip-serve-logs")
        expected.append(f"events_2026-01-{day}_1")
    airflow.until(lambda: all_done(10), 240)
    time.sleep(5)
    assert data_runs() == expected
