"""What a replica has counted since a stage of a rollout began: `GET /signals`. Counts of several replicas can be added.

Times are counted in buckets whose ends grow by a tenth. Scores are counted in buckets of half a unit of log-odds, which
are narrow near 0, where the scores of rare events lie.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self, TypeVar

from pydantic import Field, model_validator

from training.contract.base import Frozen
from training.contract.traffic import Desired

#: Upper ends of the time buckets, in seconds, from 0.1 ms to about a minute. One more bucket counts what is slower.
TIME_BUCKETS = tuple(1e-4 * 1.1**i for i in range(141))
#: Bounds between the score buckets.
SCORE_BOUNDS = tuple(1 / (1 + math.exp(-x / 2)) for x in range(-20, 21))

Counts = tuple[int, ...]
NO_TIMES: Counts = (0,) * (len(TIME_BUCKETS) + 1)
NO_SCORES: Counts = (0,) * (len(SCORE_BOUNDS) + 1)
Summed = TypeVar("Summed", bound=Frozen)


class _Counts(Frozen):
    """Replicas of the release before still say `flagged` while a service is upgraded."""

    @model_validator(mode="before")
    @classmethod
    def _names_of_the_release_before(cls, found: Any) -> Any:
        return (
            {name.replace("flagged", "alerted"): n for name, n in found.items()} if isinstance(found, dict) else found
        )


class VersionSignals(_Counts):
    """One version in one stage. When one row of a request cannot be scored, all rows of the request count as errors."""

    asked: int = 0
    """Rows that it got to score, as answers or as shadow: the sum of `errors` and `rows`."""
    errors: int = 0
    """Rows of requests that it could not score: an exception, or scores that are not numbers."""
    rows: int = 0
    """Rows that it scored, as answers or as shadow."""
    answered: int = 0
    """Rows that it answered."""
    alerted: int = 0
    """Rows that it answered with an alert."""
    times: Counts = NO_TIMES
    """Requests that it answered, by seconds from receipt to answer. One count per time bucket."""
    scored: int = 0
    """Rows that went through the model."""
    nans: int = 0
    """Rows of `scored` with a score that was not a number."""
    scoring_times: Counts = NO_TIMES
    """Calls of the model, by seconds. One count per time bucket."""


class PairSignals(_Counts):
    """Rows that both champion and challenger scored."""

    rows: int = 0
    both_alerted: int = 0
    champion_alerted: int = 0
    """Only the champion's decision is an alert."""
    challenger_alerted: int = 0
    """Only the challenger's decision is an alert."""
    champion_scores: Counts = NO_SCORES
    challenger_scores: Counts = NO_SCORES


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
    return tuple(map(sum, zip(*values, strict=True))) if isinstance(values[0], tuple) else sum(values)
