"""What a replica has counted since a stage of a rollout began: `GET /models/<m>/signals`. Counts of replicas are added.

Times are counted in buckets whose ends grow by a tenth, outputs in the groups of the task
(training/domain/task_kind.py).
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import chain
from typing import Any, Self, TypeVar

from pydantic import Field, model_validator

from training.contract.base import Frozen
from training.contract.predictions import ALERT, PASS
from training.contract.traffic import Desired

#: Upper ends of the time buckets, in seconds, from 0.1 ms to about a minute. One more bucket counts what is slower.
TIME_BUCKETS = tuple(1e-4 * 1.1**i for i in range(141))

Counts = tuple[int, ...]
NO_TIMES: Counts = (0,) * (len(TIME_BUCKETS) + 1)
Summed = TypeVar("Summed", bound=Frozen)


class VersionSignals(Frozen):
    """One version in one stage. When one row of a request cannot be scored, all rows of the request count as errors."""

    asked: int = 0
    """Rows that it got to score, as answers or as shadow: the sum of `errors` and `rows`."""
    errors: int = 0
    """Rows of requests that it could not score: an exception, or scores that are not numbers."""
    rows: int = 0
    """Rows that it scored, as answers or as shadow."""
    answered: int = 0
    """Rows that it answered."""
    decisions: dict[str, int] = {}
    """Rows that it answered, by decision; none where the task makes no decisions."""
    times: Counts = NO_TIMES
    """Requests that it answered, by seconds from receipt to answer. One count per time bucket."""
    scored: int = 0
    """Rows that went through the model."""
    nans: int = 0
    """Rows of `scored` with a score that was not a number."""
    scoring_times: Counts = NO_TIMES
    """Calls of the model, by seconds. One count per time bucket."""

    @model_validator(mode="before")
    @classmethod
    def _of_the_release_before(cls, found: Any) -> Any:
        """A replica of the release before counts `flagged` rows."""
        if isinstance(found, dict) and "flagged" in found:
            alerts = found["flagged"]
            decisions = {ALERT: alerts, PASS: found.get("answered", 0) - alerts}
            return {name: value for name, value in found.items() if name != "flagged"} | {"decisions": decisions}
        return found


class PairSignals(Frozen):
    """Rows that both champion and challenger scored."""

    rows: int = 0
    comparable: int = 0
    """Rows of which the task can tell whether both versions agree."""
    agreed: int = 0
    champion_decisions: dict[str, int] = {}
    challenger_decisions: dict[str, int] = {}
    champion_groups: dict[str, int] = {}
    """Rows by the group of the champion's output: a range of scores, or the likeliest class."""
    challenger_groups: dict[str, int] = {}

    @model_validator(mode="before")
    @classmethod
    def _of_the_release_before(cls, found: Any) -> Any:
        """A replica of the release before counts who flagged a row. Its buckets of scores are not read."""
        if not isinstance(found, dict) or "both_flagged" not in found:
            return found
        rows, both = found.get("rows", 0), found["both_flagged"]
        old, new = found.get("champion_flagged", 0), found.get("challenger_flagged", 0)
        return {
            "rows": rows,
            "comparable": rows,
            "agreed": rows - old - new,
            "champion_decisions": {ALERT: both + old, PASS: rows - both - old},
            "challenger_decisions": {ALERT: both + new, PASS: rows - both - new},
        }


class Signals(Frozen):
    """The counts of one replica, or the sum over several (`merged`)."""

    replica: str = ""
    traffic: Desired = Desired()
    champion: int | None = None
    challenger: int | None = None
    since: datetime | None = None
    """When the replica applied this state of traffic."""
    versions: dict[int, VersionSignals] = Field(default_factory=dict)
    pair: PairSignals = PairSignals()

    def of(self, version: int | None) -> VersionSignals:
        return self.versions.get(version, VersionSignals()) if version is not None else VersionSignals()

    @classmethod
    def merged(cls, parts: Sequence[Self]) -> Self:
        """The sum over replicas in the same state of traffic, with the latest `since`."""
        if not parts:
            return cls()
        versions = {v for part in parts for v in part.versions}
        return parts[0].model_copy(
            update={
                "replica": ", ".join(dict.fromkeys(part.replica for part in parts)),
                "since": max((part.since for part in parts if part.since), default=None),
                "versions": {v: _sum([part.of(v) for part in parts]) for v in sorted(versions)},
                "pair": _sum([part.pair for part in parts]),
            }
        )


def _sum(parts: Sequence[Summed]) -> Summed:
    values = [part.model_dump() for part in parts]
    return type(parts[0])(**{name: _added([value[name] for value in values]) for name in values[0]})


def _added(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        return {name: sum(value.get(name, 0) for value in values) for name in dict.fromkeys(chain(*values))}
    return tuple(map(sum, zip(*values, strict=True))) if isinstance(values[0], tuple) else sum(values)
