"""What a rollout's guards look at: per version, what this replica has seen since the state of traffic last changed."""

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from serving.loaded_model import MeasuredModel
from serving.traffic import Traffic
from training.contract import signals as contract
from training.contract.model_spec import ModelSpec
from training.contract.signals import NO_SCORES, NO_TIMES, SCORE_BOUNDS, TIME_BUCKETS, PairSignals, VersionSignals

#: One per row.
Scores = Sequence[float]


class Signals(Protocol):
    """Called on the request path: cheap, never raises, safe from any thread."""

    def answered(self, version: int, role: str, seconds: Sequence[float], flagged: Sequence[bool]) -> None:
        """`version` answered requests, each in its `seconds` (receipt to answer): one of `flagged` per row."""

    def failed(self, version: int, role: str, seconds: float, rows: int) -> None:
        """`version` was to answer a request of `rows` and could not: an exception, or scores that are not numbers."""

    def compares(self, answering: int, shadow: int, seconds: float) -> bool:
        """Whether the scores of both, for a request that came `seconds` ago, still say something: its state of traffic
        is not over."""

    def compared(
        self, answering: int, shadow: int, seconds: float, scores: Scores, shadow_scores: Scores | None
    ) -> None:
        """Both scored the same rows, which came `seconds` ago; None: the shadow could not (an exception, or what is no
        number)."""

    def snapshot(self) -> Mapping[str, Any]:
        """What `GET /signals` answers."""


@dataclass
class _Version:
    """Counts of one version, and what its model had counted before."""

    model: MeasuredModel
    threshold: float
    scored_before: int
    nans_before: int
    times_before: list[int]
    asked: int = 0
    errors: int = 0
    rows: int = 0
    answered: int = 0
    flagged: int = 0
    times: list[int] = field(default_factory=lambda: list(NO_TIMES))

    @classmethod
    def of(cls, model: MeasuredModel) -> "_Version":
        return cls(model, model.threshold, model.scored, model.nans, list(model.times))

    def state(self) -> VersionSignals:
        calls = tuple(now - before for now, before in zip(self.model.times, self.times_before, strict=True))
        return VersionSignals(
            asked=self.asked,
            errors=self.errors,
            rows=self.rows,
            answered=self.answered,
            flagged=self.flagged,
            times=tuple(self.times),
            scored=self.model.scored - self.scored_before,
            nans=self.model.nans - self.nans_before,
            scoring_times=calls,
        )


class RolloutSignals:
    """Implements Signals. `begin` is the watcher's: it starts the counts anew for another state of traffic."""

    def __init__(self, spec: ModelSpec, replica: str = "") -> None:
        self._model, self._replica = spec.name, replica
        self._lock = threading.Lock()
        self._begin(Traffic())

    def begin(self, traffic: Traffic) -> None:
        """Counts start at zero, unless `traffic` is the same as before in all that requests see of it."""
        with self._lock:
            if _identity(traffic) != _identity(self._traffic):
                self._begin(traffic)

    def _begin(self, traffic: Traffic) -> None:
        self._traffic, self._since, self._began = traffic, datetime.now(UTC), time.monotonic()
        loaded = [each for each in (traffic.champion, traffic.challenger, traffic.previous) if each is not None]
        self._versions = {each.version: _Version.of(each.model) for each in loaded}
        self._pair = dict.fromkeys(("rows", "both_flagged", "champion_flagged", "challenger_flagged"), 0)
        self._champion_scores, self._challenger_scores = list(NO_SCORES), list(NO_SCORES)

    def answered(self, version: int, role: str, seconds: Sequence[float], flagged: Sequence[bool]) -> None:
        with self._lock:
            counts = self._counting(version, role, max(seconds))
            if counts is None:
                return
            counts.asked += len(flagged)
            counts.rows += len(flagged)
            counts.answered += len(flagged)
            counts.flagged += sum(flagged)
            for each in seconds:
                counts.times[bisect_left(TIME_BUCKETS, each)] += 1

    def failed(self, version: int, role: str, seconds: float, rows: int) -> None:
        with self._lock:
            counts = self._counting(version, role, seconds)
            if counts is None:
                return
            counts.asked += rows
            counts.errors += rows
            counts.times[bisect_left(TIME_BUCKETS, seconds)] += 1

    def compares(self, answering: int, shadow: int, seconds: float) -> bool:
        with self._lock:
            return self._compares(answering, shadow, seconds)

    def compared(
        self, answering: int, shadow: int, seconds: float, scores: Scores, shadow_scores: Scores | None
    ) -> None:
        with self._lock:
            if not self._compares(answering, shadow, seconds):
                return
            counts = self._versions[shadow]
            counts.asked += len(scores)
            if shadow_scores is None:
                counts.errors += len(scores)
                return
            counts.rows += len(shadow_scores)
            if self._traffic.mode == "shadow":
                self._compare(self._versions[answering], counts, scores, shadow_scores)
            else:
                self._compare(counts, self._versions[answering], shadow_scores, scores)

    def _compares(self, answering: int, shadow: int, seconds: float) -> bool:
        traffic = self._traffic
        champion, challenger = (each.version if each else None for each in (traffic.champion, traffic.challenger))
        # Who answers and who scores beside follows from the mode; another pair is of a request from before.
        pair = (champion, challenger) if traffic.mode == "shadow" else (challenger, champion)
        return (answering, shadow) == pair and time.monotonic() - seconds >= self._began

    def _counting(self, version: int, role: str, seconds: float) -> _Version | None:
        """Where a request counts; None for one that began before the last change, and for one pinned to a version."""
        if role == "pinned" or time.monotonic() - seconds < self._began:
            return None
        return self._versions.get(version)

    def _compare(self, champion: _Version, challenger: _Version, old: Scores, new: Scores) -> None:
        pair = self._pair
        for a, b in zip(old, new, strict=True):
            pair["rows"] += 1
            flagged = (a >= champion.threshold, b >= challenger.threshold)
            pair["both_flagged"] += flagged == (True, True)
            pair["champion_flagged"] += flagged == (True, False)
            pair["challenger_flagged"] += flagged == (False, True)
            self._champion_scores[bisect_right(SCORE_BOUNDS, a)] += 1
            self._challenger_scores[bisect_right(SCORE_BOUNDS, b)] += 1

    def snapshot(self) -> Mapping[str, Any]:
        with self._lock:
            traffic = self._traffic
            return contract.Signals(
                replica=self._replica,
                traffic=traffic.state,
                champion=traffic.champion.version if traffic.champion else None,
                challenger=traffic.challenger.version if traffic.challenger else None,
                since=self._since,
                versions={version: counts.state() for version, counts in self._versions.items()},
                pair=PairSignals(
                    champion_scores=tuple(self._champion_scores),
                    challenger_scores=tuple(self._challenger_scores),
                    **self._pair,
                ),
            ).model_dump(mode="json")


def _identity(traffic: Traffic) -> tuple[Any, ...]:
    """What makes a state of traffic another one. `previous` answers nobody."""
    loaded = ((each.version, each.digest) if each else None for each in (traffic.champion, traffic.challenger))
    return (*loaded, traffic.state)
