"""The life of a model over some months, as its tasks would have written it: events, ledger, reports. For pages."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

from perennial_airflow.life.facts import facts
from perennial_airflow.life.store import record

from training import storage
from training.adapters.ledger import FIRST_HASH, Entry
from training.contract.life import Event, Owner
from training.settings import StateSettings

#: (days since the beginning, run, step, inputs, result or error)
_Done = tuple[float, str, str, dict[str, Any], dict[str, Any] | str]
REPORT = "<!DOCTYPE html><title>A report</title><h1>A report</h1><script>document.title = 'ran'</script>"


class ModelLife:
    """`weeks` of a model whose performance falls in the second half, until a training on drift replaces it."""

    def __init__(
        self,
        settings: StateSettings,
        model: str,
        source: str,
        *,
        weeks: int = 12,
        seed: int = 0,
        title: str = "",
        owner: str = "a-team",
        end: datetime | None = None,
    ) -> None:
        self.settings, self.model, self.source = settings, model, source
        self.weeks, self.random = weeks, random.Random(seed)
        self.end = end or datetime.now(UTC).replace(microsecond=0)
        self.began = self.end - timedelta(weeks=weeks)
        self.about = {"title": title or model, "owner": owner, "source": source, "primary": "average_precision"}
        self._entries: list[Entry] = []
        self._version, self._quality = 0, 0.0

    def write(self, *, with_source: bool = True, with_ledger: bool = True) -> None:
        """Events of the model; those of its source and the entries of its ledger, unless they are not wanted."""
        for day in range(7 * self.weeks):
            if with_source:
                for done in self._taken_in(day):
                    self.event("sources", done)
            if day in (7, 7 * self.weeks * 3 // 4):
                for done in self._trained(day, "scheduled training" if day == 7 else "drift and worse performance"):
                    self.event("models", done)
            if day > 7:
                for done in self._monitored(day):
                    self.event("models", done)
        if with_ledger:
            for entry in self._entries:
                uri = storage.join(self.settings.ledger, self.model, f"{entry.seq:08d}.json")
                storage.create(uri, entry.model_dump_json(indent=2).encode())

    def event(self, owner: Owner, done: _Done) -> None:
        """Write an event as the task of a step does."""
        day, run, step, inputs, result = done
        failed = isinstance(result, str)
        kind = {"sources": "data", "models": run.partition("__")[0]}[owner]
        name = self.source if owner == "sources" else self.model
        event = Event(
            at=self.at(day),
            step=step,
            status="failed" if failed else "succeeded",
            seconds=round(self.random.uniform(2, 60), 1),
            dag_id=f"{name}_{kind}",
            run_id=run,
            task_id=step,
            map_index=self.random.randrange(3) if step == "train" else -1,
            facts=facts(step, inputs, {} if isinstance(result, str) else result),
            error=result if isinstance(result, str) else "",
        )
        record(event, owner, name, self.about if owner == "models" else {}, self.settings)

    def entry(self, day: float, kind: str, key: str, body: dict[str, Any]) -> None:
        """Append an entry to the ledger's chain."""
        previous = self._entries[-1].hash if self._entries else FIRST_HASH
        fields = {"seq": len(self._entries), "kind": kind, "model": self.model, "key": key, "body": body}
        self._entries.append(Entry(**fields, at=self.at(day), previous_hash=previous).sealed())

    def at(self, day: float) -> datetime:
        return self.began + timedelta(days=day)

    def day(self, day: float) -> date:
        return self.at(day).date()

    def report(self, *path: str, content: str = REPORT) -> str:
        """Write a report into the work folder; returns its URI."""
        uri = storage.join(self.settings.work, *path)
        storage.write(uri, content.encode())
        return uri

    def _taken_in(self, day: int) -> Iterator[_Done]:
        for hours, feed in ((3, "events"), (4, "labels")):
            partition, bad = str(self.day(day)), self.random.randrange(60) if self.random.random() < 0.2 else 0
            page = self.report(self.source, "data_docs", f"{feed}-{partition}-0", "index.html")
            result = {"outcome": "appended", "rows_kept": self.random.randrange(1700, 2300), "rows_quarantined": bad}
            result |= {"data_docs": page, "quarantine_reasons": {"amount: not null": bad} if bad else {}}
            inputs = {"source": self.source, "feed": feed, "partition": partition, "uri": "file"}
            yield day + hours / 24, f"{feed}__{partition}", "ingest", inputs, result

    def _monitored(self, day: int) -> Iterator[_Done]:
        run, at, as_of = f"monitor__{self.day(day)}", day + 6 / 24, str(self.day(day))
        fallen = max(0.0, (day / 7 / self.weeks - 0.5)) if self._version == 1 else 0.0
        snapshot = {"as_of": as_of, "champion_version": self._version, "table_versions": {"events": day}}
        share = min(1.0, max(0.0, self.random.gauss(0.04 + 1.4 * fallen, 0.03)))
        drifted = share > 0.2
        page = self.report(self.model, "drift", f"{as_of}-v{self._version}", "report.html")
        names = ["amount", "hour", "distance", "count_7d"][: round(share * 8)]
        drift = {"outcome": "measured", "drifted": drifted, "drifted_share": share, "snapshot": snapshot}
        drift |= {"columns": {name: {"drifted": True} for name in names}, "report_html": page}
        yield at, run, "drift", {"model": self.model}, drift
        value = self._quality - fallen * 0.8 + self.random.gauss(0, 0.012)
        worse = value < self._quality - 0.06
        estimate = {"window": {"start": as_of, "end": as_of}, "low": value - 0.05, "high": value + 0.05}
        found = {"outcome": "measured", "rows": 1_900, "degraded": worse, "snapshot": snapshot, "estimated": estimate}
        found |= {"current": {"average_precision": value}, "reference": {"average_precision": self._quality}}
        yield at + 0.01, run, "performance", {"model": self.model}, found
        self.entry(at + 0.011, "monitoring_run", as_of, {"as_of": as_of, "champion_version": self._version})
        decided: dict[str, Any] = {"request_id": None, "granted": False, "why": "No reason to train.", "waiting": []}
        yield at + 0.012, run, "decide_retraining", {"model": self.model}, decided

    def _trained(self, day: int, reason: str) -> Iterator[_Done]:
        run, model, version = f"train__{self.day(day)}", {"model": self.model}, self._version + 1
        request = {"id": f"request-{version}", "trigger": "drift" if version > 1 else "first", "reason": reason}
        self.entry(day, "request", f"request-{version}", {**request, "as_of": str(self.day(day))})
        decision = {"request_id": f"request-{version}", "outcome": "granted", "why": "Nothing speaks against it."}
        self.entry(day, "decision", f"request-{version}", decision)
        decided = {"request_id": f"request-{version}", "granted": True, "why": decision["why"], "waiting": []}
        yield day + 0.01, run, "decide_retraining", model, decided
        for number, estimator in enumerate(("logistic_regression", "random_forest", "xgboost")):
            result = {"estimator": estimator, "run_id": f"{version}{number}" * 8, "fit_seconds": 3 + 20 * number}
            yield day + 0.02 + 0.001 * number, run, "train", {**model, "estimator": estimator}, result
        self._quality = 0.71 + 0.02 * version + self.random.gauss(0, 0.01)
        quality = {"average_precision": self._quality}
        reasons = [f"passed: average_precision {self._quality:.3f} must be at least 0.6"]
        if version > 1:
            reasons.append("passed: the gain over the champion is 0.041 to 0.103, at least 0")
        verdict = {"promote": True, "primary": "average_precision", "reasons": reasons, "challenger": quality}
        challenger = {"estimator": "xgboost", "run_id": f"{version}2" * 8}
        uri = self.report(self.model, "verdicts", run, "report.json", content=json.dumps(verdict))
        self.report(self.model, "verdicts", run, "report.md", content="# Verdict: promote")
        judged = {"challenger": challenger, "verdict": verdict, "report_uri": uri, "champion_version": self._version}
        yield day + 0.03, run, "evaluate", model, judged
        self.report(self.model, "evidence", str(version), "index.html")
        inputs = {**model, "challenger": challenger, "verdict": verdict, "reason": reason}
        yield day + 0.031, run, "register", inputs, {"version": version, "digest": "0" * 64}
        if version > 1:
            asked = {"version": version, "why": ["a person approves every version of this model"], "run": run}
            self.entry(day + 0.032, "approval", f"{version}:asked", asked)
            ended = {"version": version, "outcome": "approved", "by": "ada", "comment": "As agreed on Monday."}
            self.entry(day + 0.2, "approval", f"{version}:ended", ended)
        move = {"number": version, "kind": "rollout", "version": version, "champion": self._version or None}
        self.entry(day + 0.21, "rollout", f"{version}:started", {**move, "phase": "started", "run": run})
        self.entry(day + 0.25, "rollout", f"{version}:finished", {**move, "phase": "finished", "run": run})
        done = {"version": version, "previous_version": self._version or None, "seconds": 41.5}
        yield day + 0.251, run, "rollout", {**model, "reason": reason}, done
        self._version = version
