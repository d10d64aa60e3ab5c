"""Which tasks decided how long the loop took: the last one, the task that it waited for, and so on back to the first.

A task waits for the tasks before it in its run. The first task of a run waits for the task that started the run, or for
an earlier run of the same DAG, because only one run is active at a time.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from local.airflow_api import Airflow, Run, Task

#: The DAGs of the loop. `LANDING` starts the runs of `DATA`, the others start by asset events.
LANDING, DATA = "landing", "data"
KINDS = (LANDING, DATA, "monitor", "train")
#: Task → the tasks for which it waits, by DAG.
Upstream = Mapping[str, Mapping[str, set[str]]]


@dataclass(frozen=True)
class Link:
    """A task on the path. `causes`: the run and task of each asset event that started its run."""

    run: Run
    task: Task
    causes: frozenset[tuple[str, str]] = frozenset()

    @property
    def began(self) -> datetime:
        assert self.task.started is not None  # only tasks that have begun become links
        return self.task.started

    @property
    def name(self) -> str:
        """What tells it from other tasks of the same id: the feed of its run, or the label of a mapped task."""
        return f"{self.task.id} {self.task.label or self.run.conf.get('feed', '')}".strip()


def links(airflow: Airflow) -> list[Link]:
    """All tasks of the loop that have begun."""
    found = []
    for run in [run for kind in KINDS for run in airflow.runs(kind)]:
        causes = frozenset((cause["source"] or "", cause["task"] or "") for cause in airflow.causes(run))
        found += [Link(run, task, causes) for task in airflow.tasks(run) if task.started is not None]
    return found


def critical_path(last: Link, all_links: Iterable[Link], upstream: Upstream) -> list[Link]:
    """The path that ends with `last`, the first task first."""
    found, path = list(all_links), [last]
    while before := list(_waited_for(path[0], found, upstream)):
        path.insert(0, max(before, key=lambda link: (link.task.ended, link.began)))
    return path


def _waited_for(link: Link, found: list[Link], upstream: Upstream) -> Iterator[Link]:
    in_run = [other for other in found if other.run == link.run and other.task.ended]
    if before := [other for other in in_run if other.task.id in upstream[link.run.kind][link.task.id]]:
        yield from before
        return
    for other in found:
        if other.task.ended is None or other.began >= link.began or other.run == link.run:
            continue
        starts_it = other.run.kind == LANDING if link.run.kind == DATA else (other.run.id, other.task.id) in link.causes
        if starts_it or (other.run.kind == link.run.kind and other.task.ended <= link.began):
            yield other
