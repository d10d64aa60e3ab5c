"""The story: what is landed when, and what is waited for. Nothing here triggers a DAG; data does.

Killed anywhere and told again, it goes on where it was: what is landed lies in the landing folder, what happened since
is asked of Airflow.
"""

import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from local.airflow_api import ENDED, Airflow, Run, Task
from local.generator import LABEL_DELAY, land
from local.plan import Plan
from local.progress import Progress
from local.traffic import BATCH, Serving, as_json
from training.contract.base import Days
from training.contract.errors import StepError
from training.contract.model_spec import Feed

#: The DAGs that the story follows.
KINDS = ("data", "drift", "train")
POLL_SECONDS = 1.0
#: Seconds in which a wait must end. Generous: a slow machine is not a broken one.
FIRST_CHAMPION_PATIENCE, WEEK_PATIENCE = 900.0, 600.0


class Story:
    """Tells `plan` on a running stack. Raises StepError, with the log's end, when something in it fails for good."""

    def __init__(self, plan: Plan, landing: Path, airflow: Airflow, serving: Serving, progress: Progress) -> None:
        self.plan = plan
        self._landing = landing
        self._airflow = airflow
        self._serving = serving
        self._progress = progress
        self._generator = plan.generator()
        #: Called about once a second while waiting.
        self.on_tick: Callable[[], None] = lambda: None
        self._runs: dict[str, list[Run]] = {}
        #: Payments of the day that has not landed yet, in parts, for as long as a rollout needs some.
        self._live = self._payments(plan.history.end)
        # Labels come first: the drift run that the events start then finds all there is.
        self._first_labels = Days(start=plan.history.start + LABEL_DELAY, end=plan.history.end)

    def prepare(self) -> None:
        """Land what the stack may find when it starts."""
        self._land("labels", self._first_labels)

    def tell(self) -> None:
        """Until a version trained on the changed world serves, or the plan's weeks are over."""
        self.prepare()
        self.first_champion()
        for number in range(1, self.plan.drifted_weeks + 1):
            if self.retrained():
                return
            self.drifted_week(number)

    def first_champion(self) -> None:
        """Land the history and wait until the first version serves."""
        history, labels = self.plan.history, self._first_labels
        self._wait("the labels of the history", lambda: self._data_run("labels", labels), FIRST_CHAMPION_PATIENCE)
        self._land("events", history)
        self._wait("the first champion", lambda: self._serving.champion() or 0, FIRST_CHAMPION_PATIENCE, self._stuck)
        payment = as_json(self._generator.events(history.end).slice(0, 1).to_pylist()[0])
        answer = self._serving.predict(payment)
        version = answer["model_version"]
        self._progress.say(f"Version {version} serves: a payment of {payment['amount']} scores {answer['score']:.4f}")

    def drifted_week(self, number: int) -> None:
        """One week of the changed world: its payments are scored, then it lands, then the loop answers."""
        days = self.plan.week(number)
        if not self._file("events", days).exists():
            version = self._serving.champion()
            payments = pa.concat_tables([self._generator.events(day) for day in each_day(days)])
            self._progress.now(f"Week {number} of the changed world: scoring {payments.num_rows} payments")
            scored, flagged = self._serving.replay(payments)
            self._progress.say(f"Week {number} ({days}): version {version} scored {scored}, flagged {flagged} payments")
        self._live = self._payments(days.end)
        self._land("labels", days)
        self._wait(f"the labels of week {number}", lambda: self._data_run("labels", days), WEEK_PATIENCE)
        self._land("events", days)
        self._wait(f"week {number} to be worked through", lambda: self._settled(days), WEEK_PATIENCE)
        self._tell_outcome(number, days)

    def retrained(self) -> bool:
        """Does a version serve that came out of drift or performance?"""
        return self._winner() is not None and (self._serving.champion() or 0) >= 2

    def _payments(self, day: date) -> Iterator[pa.Table]:
        """The payments from `day` on, without end, as many at a time as are made in a short while."""
        while True:
            payments = self._generator.events(day)
            yield from (payments.slice(start, BATCH) for start in range(0, payments.num_rows, BATCH))
            day += timedelta(days=1)

    # --- what is waited for ---

    def _data_run(self, feed: Feed, days: Days) -> bool:
        """Has the partition been taken in?"""
        asked = (feed, self._file(feed, days).stem)
        runs = [run for run in self._runs["data"] if (run.conf.get("feed"), run.conf.get("partition")) == asked]
        return bool(runs) and runs[-1].state == "success"

    def _settled(self, days: Days) -> bool:
        """The week is in, the drift DAG has looked at it, and a training that it asked for is over."""
        if not self._data_run("events", days) or self._active():
            return False
        looked = self._drift_run(days)
        if looked is None:
            return False
        request = self._airflow.result(looked, "decide_retraining") or {}
        trained = {self._request_of(run) for run in self._runs["train"]}
        return not request.get("granted") or request["request_id"] in trained

    def _stuck(self) -> str | None:
        """Why the first champion will not come: a training is over, nothing goes on, and nothing serves."""
        if not self._runs["train"] or self._active() or self._serving.champion():
            return None
        # A run whose request was not granted reached no verdict: by the clock, say, before there was data.
        found = (self._airflow.result(run, "evaluate") for run in reversed(self._runs["train"]))
        verdict = next((result["verdict"] for result in found if result), None)
        if verdict is None or verdict["promote"]:
            return None
        return f"The first training promoted nothing: {'; '.join(verdict['reasons'])}"

    def _active(self) -> list[Run]:
        return [run for kind in KINDS for run in self._runs[kind] if not run.over]

    def _drift_run(self, days: Days) -> Run | None:
        """The finished drift run that has seen these days."""
        for run in reversed(self._runs["drift"]):
            if run.state == "success":
                drift = self._airflow.result(run, "drift") or {}
                seen = drift.get("snapshot", drift).get("as_of")
                return run if seen is not None and seen >= str(days.end) else None
        return None

    def _winner(self) -> Run | None:
        """The first training by drift or performance that registered a version and rolled it out."""
        self._look()
        for run in self._runs["train"]:
            request = self._airflow.result(run, "decide_retraining") or {}
            rollout = self._airflow.result(run, "rollout") or {}
            if request.get("trigger") in ("drift", "performance") and rollout.get("version"):
                return run
        return None

    def _request_of(self, run: Run) -> str | None:
        return (self._airflow.result(run, "decide_retraining") or {}).get("request_id")

    def _wait(
        self, what: str, done: Callable[[], Any], patience: float, stuck: Callable[[], str | None] = lambda: None
    ) -> None:
        """Until `done`. Raises StepError when a run fails, when `stuck` says why, or after `patience` seconds."""
        deadline = time.monotonic() + patience
        self._look()
        while not done():
            self.on_tick()
            if self._serving.in_stages():
                self._serving.replay(next(self._live))
            self._fail_with_runs()
            why = stuck()
            if why is None and time.monotonic() > deadline:
                why = f"Waited {patience:.0f} s for {what}. What goes on: {self._going_on()}"
            if why:
                raise StepError(why, hint="Airflow's UI shows every run and its logs; `make status` every program.")
            self._progress.now(f"Waiting for {what}: {self._going_on()}")
            time.sleep(POLL_SECONDS)
            self._look()

    def _look(self) -> None:
        """What Airflow knows now; everything that is decided in one round is decided on the same."""
        self._runs = {kind: self._airflow.runs(kind) for kind in KINDS}

    def _fail_with_runs(self) -> None:
        for kind in KINDS:
            for run in self._runs[kind]:
                if run.state == "failed":
                    raise StepError(
                        f"Run {run.id} of {self.plan.model}_{kind} failed. {self._failure(run)}",
                        hint="Mend the cause; then `make up`, clear the task in Airflow's UI, and `make demo` goes on.",
                    )

    def _failure(self, run: Run) -> str:
        failed = next((task for task in self._airflow.tasks(run) if task.state == "failed"), None)
        if failed is None:
            return f"See {self._airflow.page(run)}"
        log = "\n".join(f"    {line}" for line in self._airflow.log(run, failed))
        return f"Task {failed.id} ended its log with:\n{log}\n  See {self._airflow.page(run)}"

    def _going_on(self) -> str:
        """The tasks that run now, or what is queued."""
        active = self._active()
        tasks = [f"{run.kind}/{name(task)}" for run in active for task in self._airflow.tasks(run) if _runs(task)]
        return ", ".join(tasks or [f"{run.kind} run {run.state}" for run in active]) or "nothing runs"

    # --- landing and telling ---

    def _land(self, feed: Feed, days: Days) -> None:
        if not self._file(feed, days).exists():
            path = land(self._generator, self._landing, self.plan.model, feed, days)
            self._progress.say(f"Landed {feed} of {days}: {path}")

    def _file(self, feed: Feed, days: Days) -> Path:
        *_, last = each_day(days)
        return self._landing / self.plan.model / feed / f"{days.start}_{last}.parquet"

    def _tell_outcome(self, number: int, days: Days) -> None:
        run = self._drift_run(days)
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
