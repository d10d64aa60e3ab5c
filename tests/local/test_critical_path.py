"""Which tasks decided how long the loop took."""

from datetime import UTC, datetime, timedelta

from benchmarks.critical_path import Link, critical_path
from local.airflow_api import Run, Task

START = datetime(2026, 1, 5, tzinfo=UTC)
UPSTREAM: dict[str, dict[str, set[str]]] = {
    "landing": {"start_data_runs": set()},
    "data": {"check": set(), "ingest": set(), "features": {"check", "ingest"}, "try_again_later": {"features"}},
    "monitor": {"drift": set(), "decide_retraining": {"drift"}},
    "train": {"dataset": set(), "train": {"dataset"}, "rollout": {"train"}},
}


def link(kind: str, run: str, task: str, began: float, ended: float | None, cause: str = "", index: int = -1) -> Link:
    of = Run(kind, run, "success", "asset_triggered", START, None, {"feed": run} if kind == "data" else {})
    times = [None if at is None else START + timedelta(seconds=at) for at in (began, began, ended)]
    label = f"estimator-{index}" if index >= 0 else ""
    causes = frozenset({(cause.split(".")[0], cause.split(".")[1])} if cause else ())
    return Link(of, Task(task, "success", index, 1, label, *times), causes)


def loop(first_monitor_ends: float) -> list[Link]:
    return [
        link("landing", "landed", "start_data_runs", 1, 2.5),
        # Begins before the task ends that started its run.
        link("data", "events", "check", 2, 6),
        link("data", "events", "ingest", 2, 4),
        link("data", "events", "features", 6.5, 8),
        # Waits for the run before, which is older than the task that started it.
        link("data", "labels", "check", 8.5, 9),
        link("data", "labels", "ingest", 8.5, 10),
        link("data", "labels", "features", 10.5, 12),
        link("monitor", "first", "drift", 9, 11, "events.features"),
        link("monitor", "first", "decide_retraining", 11.2, first_monitor_ends),
        link("monitor", "second", "drift", 13, 14, "labels.features"),
        link("monitor", "second", "decide_retraining", 14.5, 15),
        link("train", "first", "dataset", 16, 17, "second.decide_retraining"),
        link("train", "first", "train", 17.5, 20, index=0),
        link("train", "first", "train", 17.5, 25, index=1),
        link("train", "first", "rollout", 26, None),
    ]


def names(found: list[Link]) -> list[str]:
    path = critical_path(found[-1], found, UPSTREAM)
    return [f"{each.run.id}.{each.name}" for each in path]


TRAINING = ["first.dataset", "first.train estimator-1", "first.rollout"]


def test_the_path_goes_back_from_the_last_task_over_what_each_waited_for() -> None:
    assert names(loop(first_monitor_ends=11.9)) == [
        "landed.start_data_runs",
        "events.check events",
        "events.features events",
        "labels.ingest labels",
        "labels.features labels",
        "second.drift",
        "second.decide_retraining",
        *TRAINING,
    ]


def test_a_run_may_wait_for_the_run_before_it_and_not_for_its_data() -> None:
    assert names(loop(first_monitor_ends=12.5)) == [
        "landed.start_data_runs",
        "events.check events",
        "events.features events",
        "first.drift",
        "first.decide_retraining",
        "second.drift",
        "second.decide_retraining",
        *TRAINING,
    ]
