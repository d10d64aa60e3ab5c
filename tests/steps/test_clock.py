"""The clock of a machine decides nothing: `as_of` counts days of data.

The loop runs twice, the second time on machines whose clocks are nine days ahead or behind, each step on another one.
"""

import datetime as datetimes
import importlib
import json
import pkgutil
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

import training.adapters
import training.steps
from testing.chaos_loop import TABLES, lasting, ledger_content, sorted_rows
from testing.loop_steps import MODEL, SOURCE, run_loop, write_spec
from testing.verdicts import computed
from training.adapters.lake import Lake
from training.adapters.ledger import Ledger
from training.adapters.registry import CHAMPION, Registry
from training.contract.messages import StepReport, Verdict
from training.runner import run_step

pytestmark = pytest.mark.long

AHEAD = timedelta(days=9)
#: What is another one each time: ids that are made of the tables' ids, which are random, and a duration.
OTHERS = {"dataset_id", "report_uri", "fit_seconds"}


class _OfAnyClock(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, datetime)


@contextmanager
def shifted(by: timedelta) -> Iterator[None]:
    """Python's clock, and that of our modules, is wrong by `by`."""

    class Shifted(datetime, metaclass=_OfAnyClock):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + by

    for package in (training.steps, training.adapters):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
    real = time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: real() + by.total_seconds())
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "training" and getattr(module, "datetime", None) is datetimes.datetime:
                patch.setattr(module, "datetime", Shifted)
        yield


class Machines:
    """The steps. Each runs by the next of `clocks`, again and again."""

    def __init__(self, folder: Path, clocks: list[timedelta]) -> None:
        self.folder, self._clocks = folder, clocks
        self.results: list[tuple[str, Any]] = []

    def step(self, name: str, **inputs: Any) -> dict[str, Any]:
        report = self.folder / "report.json"
        with shifted(self._clocks[len(self.results) % len(self._clocks)]):
            code = run_step(name, json.dumps(inputs, default=str), str(report))
        found = StepReport.model_validate_json(report.read_text())
        assert code == 0, (name, found.error)
        result = found.result or {}
        same = {field: value for field, value in lasting(result).items() if field not in OTHERS}
        if "verdict" in same:
            same["verdict"] = computed(Verdict.model_validate(result["verdict"])).model_dump(mode="json")
        self.results.append((name, json.loads(json.dumps(same).replace(str(self.folder), ""))))
        return result


def run(folder: Path, database: Path, clocks: list[timedelta]) -> tuple[Machines, dict[str, Any], Ledger]:
    """What the steps return and the loop ends with, and its ledger."""
    folder.mkdir()
    shutil.copy(database, folder)
    uri, machines = f"sqlite:///{folder}/mlflow.db", Machines(folder, clocks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CT_HOME", str(folder / "home"))
        patch.setenv("CT_MODELS_DIR", str(write_spec(folder / "models", serving=None)))
        patch.setenv("CT_TRACKING_URI", uri)
        run_loop(machines.step, folder / "home" / "landing")
    lake, ledger = Lake(str(folder / "home" / "lake"), SOURCE, MODEL), Ledger(str(folder / "home" / "ledger"))
    champion = Registry(uri).by_alias(MODEL, CHAMPION)
    assert champion is not None
    state = {
        "lake": {table: sorted_rows(lake.scan(table).to_table()) for table in TABLES},
        "ledger": ledger_content(ledger),
        "champion": (champion.version, champion.digest),
    }
    return machines, state, ledger


def test_a_clock_that_is_days_ahead_or_behind_changes_no_decision(tmp_path: Path, mlflow_database: Path) -> None:
    right, expected, _ = run(tmp_path / "right", mlflow_database, [timedelta(0)])
    began = datetime.now(UTC)
    wrong, found, ledger = run(tmp_path / "wrong", mlflow_database, [AHEAD, -AHEAD])
    assert [name for name, _ in wrong.results] == [name for name, _ in right.results]
    for (name, mine), (_, other) in zip(wrong.results, right.results, strict=True):
        assert {each: mine[each] for each in mine if mine[each] != other.get(each)} == {}, name
    assert found == expected
    # The clocks were wrong: entries say when they were written.
    off = {round((entry.at - began) / timedelta(days=1)) for entry in ledger.entries(MODEL)}
    assert off == {AHEAD.days, -AHEAD.days}
