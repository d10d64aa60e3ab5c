"""The demo's scenario: which data lands when, and what the demo waits for. It triggers no DAG; the data does.

It can be killed at any point and run again. It then continues: the landing folder shows what has landed, and Airflow
knows what happened since.
"""

import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from local.airflow_api import ENDED, Airflow, Run, Task
from local.plans import Plan
from local.progress import Progress
from local.traffic import BATCH, Serving, as_json
from training.contract.base import Days
from training.contract.errors import StepError

#: The DAGs that the scenario follows.
KINDS = ("data", "monitor", "train")
POLL_SECONDS = 1.0
#: Time limits of a wait, in seconds. They leave room for a slow machine.
FIRST_CHAMPION_TIMEOUT, WEEK_TIMEOUT = 900.0, 900.0


class Scenario:
    """Runs `plan` on a running stack. Raises StepError, with the end of the log, when a part of it fails for good."""

    def __init__(self, plan: Plan, landing: Path, airflow: Airflow, serving: Serving, progress: Progress) -> None:
        self.plan = plan
        self._landing = landing
        self._airflow = airflow
        self._serving = serving
        self._progress = progress
        #: Called about once a second while waiting.
        self.on_tick: Callable[[], None] = lambda: None
        self._runs: dict[str, list[Run]] = {}
        #: Events of the first day that has not landed, in batches. A rollout gets them as its traffic.
        self._live = self._events(plan.history.end)

    def prepare(self) -> None:
        """Land the files that the stack finds when it starts."""
        # Labels land first, so that the monitoring run that the events start finds them.
        self._land("labels", self.plan.first_labels)

    def run(self) -> None:
        """Run until a version trained on the changed data serves, or the plan's weeks are over."""
        self.prepare()
        self.first_champion()
        for number in range(1, self.plan.changed_weeks + 1):
            if self.retrained():
                return
            self.changed_week(number)

    def first_champion(self) -> None:
        """Land the history and wait until the first version serves."""
        history, labels = self.plan.history, self.plan.first_labels
        self._wait("the labels of the history", lambda: self._data_run("labels", labels), FIRST_CHAMPION_TIMEOUT)
        self._land("events", history)
        self._wait("the first champion", lambda: self._serving.champion() or 0, FIRST_CHAMPION_TIMEOUT, self._stuck)
        event = as_json(self.plan.events(history.end).slice(0, 1).to_pylist()[0])
        answer = self._serving.predict(event)
        self._progress.say(f"Version {answer['model_version']} serves: {self.plan.describe(event, {**answer})}")

    def changed_week(self, number: int) -> None:
        """One week of changed data: its events are scored, then it lands, then the loop reacts."""
        days = self.plan.week(number)
        if not self._file("events", days).exists():
            version = self._serving.champion()
            events, what = pa.concat_tables([self.plan.events(day) for day in each_day(days)]), self.plan.events_name
            self._progress.now(f"Week {number} of changed data: scoring {events.num_rows} {what}")
            scored, decisions = self._serving.replay(events)
            decided = "".join(f", {count} {decision}" for decision, count in sorted(decisions.items()))
            self._progress.say(f"Week {number} ({days}): version {version} scored {scored} {what}{decided}")
        self._live = self._events(days.end)
        self._land("labels", days)
        self._wait(f"the labels of week {number}", lambda: self._data_run("labels", days), WEEK_TIMEOUT)
        self._land("events", days)
        self._wait(f"the runs of week {number}", lambda: self._settled(days), WEEK_TIMEOUT)
        self._report_outcome(number, days)

    def retrained(self) -> bool:
        """Whether a version serves that was trained because of drift or performance."""
        return self._winner() is not None and (self._serving.champion() or 0) >= 2

    def _events(self, day: date) -> Iterator[pa.Table]:
        """The events from `day` on, in batches. It never ends."""
        while True:
            events = self.plan.events(day)
            yield from (events.slice(start, BATCH) for start in range(0, events.num_rows, BATCH))
            day += timedelta(days=1)

    # --- conditions to wait for ---

    def _data_run(self, feed: str, days: Days) -> bool:
        """Whether the partition has been ingested."""
        wanted = (feed, self._file(feed, days).stem)
        runs = [run for run in self._runs["data"] if (run.conf.get("feed"), run.conf.get("partition")) == wanted]
        return bool(runs) and runs[-1].state == "success"

    def _settled(self, days: Days) -> bool:
        """Whether the week is ingested, the monitor DAG has run on it, and any training that it requested is over."""
        if not self._data_run("events", days) or self._active():
            return False
        drift = self._monitoring_run(days)
        if drift is None:
            return False
        request = self._airflow.result(drift, "decide_retraining") or {}
        trained = {self._request_of(run) for run in self._runs["train"]}
        return not request.get("granted") or request["request_id"] in trained

    def _stuck(self) -> str | None:
        """Why there will be no first champion: a training is over, nothing runs, and nothing serves."""
        if not self._runs["train"] or self._active() or self._serving.champion():
            return None
        # A run whose request was not granted has no verdict, such as a scheduled one before there was data.
        found = (self._airflow.result(run, "evaluate") for run in reversed(self._runs["train"]))
        verdict = next((result["verdict"] for result in found if result), None)
        if verdict is None or verdict["promote"]:
            return None
        return f"The first training promoted nothing: {'; '.join(verdict['reasons'])}"

    def _active(self) -> list[Run]:
        return [run for kind in KINDS for run in self._runs[kind] if not run.over]

    def _monitoring_run(self, days: Days) -> Run | None:
        """The finished monitoring run that included these days."""
        for run in reversed(self._runs["monitor"]):
            if run.state == "success":
                drift = self._airflow.result(run, "drift") or {}
                seen = drift.get("snapshot", drift).get("as_of")
                return run if seen is not None and seen >= str(days.end) else None
        return None

    def _winner(self) -> Run | None:
        """The first training because of drift or performance that registered a version and rolled it out."""
        self._refresh()
        for run in self._runs["train"]:
            request = self._airflow.result(run, "decide_retraining") or {}
            rollout = self._airflow.result(run, "rollout") or {}
            if request.get("trigger") in ("drift", "performance") and rollout.get("version"):
                return run
        return None

    def _request_of(self, run: Run) -> str | None:
        return (self._airflow.result(run, "decide_retraining") or {}).get("request_id")

    def _wait(
        self, what: str, done: Callable[[], Any], timeout: float, stuck: Callable[[], str | None] = lambda: None
    ) -> None:
        """Wait until `done`. Raises StepError when a run fails, `stuck` gives a reason, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._refresh()
        while not done():
            self.on_tick()
            if self._serving.in_stages():
                self._serving.replay(next(self._live))
            self._fail_with_runs()
            why = stuck()
            if why is None and time.monotonic() > deadline:
                why = f"Waited {timeout:.0f} s for {what}. Now: {self._activity()}"
            if why:
                raise StepError(
                    why, hint="Airflow's UI shows every run and its logs; `make status` shows every program."
                )
            self._progress.now(f"Waiting for {what}: {self._activity()}")
            time.sleep(POLL_SECONDS)
            self._refresh()

    def _refresh(self) -> None:
        """Read the runs from Airflow. All conditions of one round use the same state."""
        self._runs = {kind: self._airflow.runs(kind) for kind in KINDS}

    def _fail_with_runs(self) -> None:
        for kind in KINDS:
            for run in self._runs[kind]:
                if run.state == "failed":
                    raise StepError(
                        f"Run {run.id} of {self._airflow.dag(kind)} failed. {self._failure(run)}",
                        hint="Fix the cause, run `make up`, clear the task in Airflow's UI, then run `make demo`.",
                    )

    def _failure(self, run: Run) -> str:
        failed = next((task for task in self._airflow.tasks(run) if task.state == "failed"), None)
        if failed is None:
            return f"See {self._airflow.page(run)}"
        log = "\n".join(f"    {line}" for line in self._airflow.log(run, failed))
        return f"Task {failed.id} ended its log with:\n{log}\n  See {self._airflow.page(run)}"

    def _activity(self) -> str:
        """The tasks that run now, or else the runs that are queued."""
        active = self._active()
        tasks = [f"{run.kind}/{name(task)}" for run in active for task in self._airflow.tasks(run) if _runs(task)]
        return ", ".join(tasks or [f"{run.kind} run {run.state}" for run in active]) or "nothing runs"

    # --- landing and reporting ---

    def _land(self, feed: str, days: Days) -> None:
        if not self._file(feed, days).exists():
            path = self.plan.land(self._landing, feed, days)
            self._progress.say(f"Landed {feed} of {days}: {path}")

    def _file(self, feed: str, days: Days) -> Path:
        *_, last = each_day(days)
        return self._landing / self.plan.source / feed / f"{days.start}_{last}.parquet"

    def _report_outcome(self, number: int, days: Days) -> None:
        run = self._monitoring_run(days)
        if run is None:
            return
        drift, request = self._airflow.result(run, "drift") or {}, self._airflow.result(run, "decide_retraining") or {}
        found = request.get("reason") or f"{drift.get('drifted_share', 0):.0%} of the features drifted"
        self._progress.say(f"Week {number}: {found} → {request.get('why')}")
        for train in self._runs["train"]:
            if request.get("request_id") and self._request_of(train) == request["request_id"]:
                verdict = (self._airflow.result(train, "evaluate") or {}).get("verdict", {})
                outcome = "promoted" if verdict.get("promote") else "not promoted"
                self._progress.say(f"Week {number}: trained ({request['trigger']}), {outcome}: {_primary(verdict)}")


def each_day(days: Days) -> Iterator[Any]:
    """Its dates, in order."""
    return (type(days.start).fromordinal(days.start.toordinal() + at) for at in range(len(days)))


def name(task: Task) -> str:
    return f"{task.id} ({task.label})" if task.label else task.id


def _runs(task: Task) -> bool:
    return task.state is not None and task.state not in ENDED and task.state != "scheduled"


def _primary(verdict: dict[str, Any]) -> str:
    primary = verdict.get("primary", "")
    new, old = (verdict.get("challenger") or {}).get(primary), (verdict.get("champion") or {}).get(primary)
    return (
        f"{primary} {new:.3f}" + (f" against {old:.3f}" if old is not None else "") if new is not None else "no verdict"
    )
