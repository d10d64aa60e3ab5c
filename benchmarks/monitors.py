"""All models' daily monitors at the same minute, on a real Airflow: LocalExecutor, PostgreSQL, no-op steps.

Part of `make bench-specs`. Prints how long the monitors take and how many runs are missed.
"""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from local.processes import airflow_everywhere
from testing.airflow_server import AirflowServer
from testing.postgresql import postgresql, postgresql_programs


def run_monitors(home: Path, environment: dict[str, str], models: int, minutes: float, lead_seconds: float) -> None:
    """Run the monitors of all models once and print a report. All are due `lead_seconds` after Airflow starts."""
    due = (datetime.now(UTC) + timedelta(seconds=lead_seconds + 60)).replace(second=0, microsecond=0)
    for path in Path(environment["CT_MODELS_DIR"]).glob("*.yaml"):
        fields = yaml.load(path.read_text(), yaml.CSafeLoader)
        fields["schedule"]["monitor"] = f"{due.minute} {due.hour} * * *"
        path.write_text(yaml.dump(fields, Dumper=yaml.CSafeDumper, sort_keys=False))
    home.mkdir()
    settings = airflow_everywhere() | environment
    if (installed := postgresql_programs()) is None:
        raise SystemExit("There is no PostgreSQL. Install it: apt-get install postgresql")
    with postgresql(installed) as database:
        server = AirflowServer(home, database, settings)
        server.run_no_steps()
        began = time.monotonic()
        with server.running(triggerer=False):
            server.until(lambda: _count(server, "/dags", tags="monitor") == models, lead_seconds)
            loaded = time.monotonic() - began
            print(f"\nAirflow has loaded the DAGs of all models {loaded:.0f} s after its start", flush=True)
            _wait(server, due, models, minutes)
            _report(server, due, models)


def _wait(server: AirflowServer, due: datetime, models: int, minutes: float) -> None:
    """Until every model's monitor has ended, or no task has ended for five minutes, or the time is up."""
    done, tasks, changed = 0, 0, due
    while done < models and (now := datetime.now(UTC)) < due + timedelta(minutes=minutes):
        done = sum(_count(server, "/dags/~/dagRuns", state=state) for state in ("success", "failed"))
        before, tasks = tasks, _count(server, "/dags/~/dagRuns/~/taskInstances", state="success")
        if tasks != before:
            changed = now
        elif now > changed + timedelta(minutes=5):
            return
        seconds = max(0.0, (now - due).total_seconds())
        print(f"{seconds:.0f} s after the minute: {done} of {models} have ended, {tasks} tasks", flush=True)
        time.sleep(15)


def _report(server: AirflowServer, due: datetime, models: int) -> None:
    runs: list[dict[str, Any]] = []
    for offset in range(0, models, 100):
        page: dict[str, str | int] = {"limit": 100, "offset": offset, "order_by": "id"}
        runs += server.api.get("/dags/~/dagRuns", params=page).raise_for_status().json()["dag_runs"]
    good = [run for run in runs if run["state"] == "success" and run["run_type"] == "scheduled"]
    ends = sorted(datetime.fromisoformat(run["end_date"]) for run in good)
    starts = sorted(datetime.fromisoformat(run["start_date"]) for run in good)
    tasks = _count(server, "/dags/~/dagRuns/~/taskInstances", state="success")
    print(f"\nMonitors of {models} models, all due at {due:%H:%M} UTC, {tasks} tasks that ended well")
    print(f"Missed or failed runs: {models - len({run['dag_id'] for run in good})}")
    if ends:
        seconds = (ends[-1] - due).total_seconds()
        print(f"The last run began after {(starts[-1] - due).total_seconds():.0f} s and ended after {seconds:.0f} s")
        print(f"{tasks / seconds:.2f} tasks/s on {os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}")


def _count(server: AirflowServer, path: str, **filters: str) -> int:
    found = server.api.get(path, params={"limit": 1, **filters})
    return int(found.raise_for_status().json()["total_entries"])
