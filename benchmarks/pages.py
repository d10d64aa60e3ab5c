"""What the pages about models cost with many models.

    make bench-pages                   # 1,000 models, each with a ledger and events: about two minutes

A real API server of Airflow, with the DAGs of all models in its database and a user who is logged in. The first request
reads the summaries of all models; later ones those that have changed. The pages do not ask MLflow, so there is none.
Goals: the overview within 1 s, also the first; a task is on the page within a minute.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import httpx

from testing.airflow_server import AIRFLOW, ROOT, AirflowServer

sys.path.insert(0, str(ROOT / "plugins"))

from testing.model_life import ModelLife
from training.settings import Settings

GOAL = 1.0
#: The kinds of DAGs of a model.
KINDS = ("monitor", "train", "rollback", "reproduce", "backtest", "approval")
#: Weeks of events and ledger entries of each model; of the first model, whose page is measured, more.
WEEKS, WEEKS_OF_FIRST = 3, 26

#: Adds DAGs to Airflow's database, as the DAG processor does.
ADD_DAGS = """
import sys
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.utils.session import create_session
with create_session() as session:
    session.add(DagBundleModel(name="dags-folder"))
    session.flush()
    names = open(sys.argv[1]).read().split()
    session.add_all([DagModel(dag_id=name, bundle_name="dags-folder", fileloc="/dags/model.py") for name in names])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perennial-") as folder:
        home = Path(folder)
        server = AirflowServer(home)
        settings = Settings(home=Path(server.env["CT_HOME"]))
        models = [f"model_{number:04}" for number in range(args.models)]
        last = write_lives(settings, models)
        subprocess.run([AIRFLOW, "db", "migrate"], env=server.env, check=True, capture_output=True)
        (home / "dags.txt").write_text(" ".join(f"{model}_{kind}" for model in models for kind in KINDS))
        subprocess.run([sys.executable, "-c", ADD_DAGS, str(home / "dags.txt")], env=server.env, check=True)
        server.start("api-server")
        try:
            server.log_in()
            measure(server, last, models, args.requests)
        finally:
            server.kill("api-server")


def write_lives(settings: Settings, models: list[str]) -> ModelLife:
    """Every model has the events and the ledger of the first weeks of one, and a summary. Returns the first."""
    first = ModelLife(settings, models[0], "a_source", weeks=WEEKS_OF_FIRST)
    began = time.perf_counter()
    first.write(with_source=False)
    events = Path(settings.work, "_life", "events", "models")
    count = len(list((events / models[0]).iterdir()))
    print(f"Events and summaries: {1000 * (time.perf_counter() - began) / count:.1f} ms each, with their reports")
    copied = ModelLife(settings, "copied", "a_source", weeks=WEEKS)
    copied.write(with_source=False)
    overview = Path(settings.work, "_life", "overviews", f"{models[0]}.json")
    fields = json.loads(overview.read_text())
    for number, model in enumerate(models[1:]):
        shutil.copytree(events / "copied", events / model)
        shutil.copytree(Path(settings.ledger, "copied"), Path(settings.ledger, model))
        named = {"model": model, "title": f"Model {number}", "owner": f"team-{number % 20}"}
        overview.with_name(f"{model}.json").write_text(json.dumps(fields | named))
    overview.with_name("copied.json").unlink()
    entries = len(list(Path(settings.ledger, "copied").iterdir()))
    kept = len(list((events / "copied").iterdir()))
    print(f"{len(models)} models, each with {kept} events, {entries} ledger entries and a summary of "
          f"{overview.stat().st_size:,} bytes; the first with {count} events")  # fmt: skip
    return first


def measure(server: AirflowServer, first: ModelLife, models: list[str], requests: int) -> None:
    with httpx.Client(headers=server.api.headers, base_url=f"{server.url}/perennial", timeout=120) as client:
        client.get("/models/no_such_model")  # Imports the pages.

        def get(path: str) -> float:
            began = time.perf_counter()
            client.get(path).raise_for_status()
            return time.perf_counter() - began

        print("\n| page | first request, ms | median, ms | slowest, ms |\n|---|---|---|---|")
        overview = row("overview", lambda: get("/"), requests)
        row("overview, a search", lambda: get("/?q=team-7"), requests)
        row("overview, the last page", lambda: get("/?page=10000"), requests)
        row(f"a model, {WEEKS_OF_FIRST} weeks", lambda: get(f"/models/{models[0]}"), requests)
        row("a model", lambda: get(f"/models/{models[1]}"), requests)
        ended = time.perf_counter()
        first.event("models", (first.weeks * 7, "train__x", "rollout", {}, {"version": 77}))
        while "version 77" not in client.get("/?q=model_0000").text:
            pass
        fresh = time.perf_counter() - ended
    print(f"\nA task was on the overview {1000 * fresh:.0f} ms after it had ended.")
    print(f"Goal: the overview within {GOAL:.0f} s; the slowest took {overview:.2f} s.")
    print(f"Load average of the machine: {os.getloadavg()[0]:.1f}")


def row(name: str, get: Callable[[], float], requests: int) -> float:
    """Returns the seconds of the slowest request."""
    first, found = get(), [get() for _ in range(requests)]
    print(f"| {name} | {1000 * first:.0f} | {1000 * median(found):.0f} | {1000 * max(found):.0f} |", flush=True)
    return max(first, *found)


if __name__ == "__main__":
    main()
