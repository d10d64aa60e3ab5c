"""The counts that a rollout's guards examine: what this replica has seen per version in its state of traffic."""

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import numpy as np

from serving.loaded_model import MeasuredModel, Work
from serving.traffic import Traffic
from training.contract import signals as contract
from training.contract.model_spec import ModelSpec
from training.contract.predictions import AnsweringRole
from training.contract.signals import NO_TIMES, TIME_BUCKETS, PairSignals, VersionSignals
from training.contract.traffic import Desired
from training.domain.task_kind import ServedTask

#: [n], or [n, k] of classes.
Scores = np.ndarray


class Signals(Protocol):
    """Called for every request: fast, never raises, safe in any thread."""

    def answered(
        self,
        version: int,
        role: AnsweringRole,
        seconds: Sequence[float],
        decisions: Mapping[str, int],
        received: float | None = None,
    ) -> None:
        """`version` answered requests. `seconds`: receipt to answer, one per request. `decisions`: decision → rows,
        empty where the task makes none.

        `received`: seconds since the first of them was received; by default they have just been answered.
        """

    def failed(self, version: int, role: AnsweringRole, seconds: float, rows: int) -> None:
        """`version` could not answer a request of `rows`: an exception, or scores that are not numbers."""

    def compares(self, answering: int, shadow: int, seconds: float) -> bool:
        """Whether scores of both versions for a request received `seconds` ago still count: its state of traffic has
        not ended."""

    def compared(
        self, answering: int, shadow: int, seconds: float, scores: Scores, shadow_scores: Scores | None
    ) -> None:
        """Both versions scored the same rows, received `seconds` ago. `shadow_scores` is None when the shadow failed:
        an exception, or scores that are not numbers."""

    def snapshot(self) -> contract.Signals:
        """`GET /models/<m>/signals`."""


@dataclass
class _Version:
    """The counts of one version. It holds no model: that of an unloaded version must not stay in memory."""

    task: ServedTask
    #: Of the version's model, and what it was when counting began.
    work: Work
    before: Work
    asked: int = 0
    errors: int = 0
    rows: int = 0
    answered: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    times: list[int] = field(default_factory=lambda: list(NO_TIMES))

    @classmethod
    def of(cls, model: MeasuredModel) -> "_Version":
        return cls(model.task, model.work, replace(model.work, times=list(model.work.times)))

    def go_on_with(self, model: MeasuredModel) -> None:
        """The version has been loaded again, and `model` counts from zero."""
        if model.work is self.work:
            return
        done, work = self._done(), model.work
        times = [now - so_far for now, so_far in zip(work.times, done.times, strict=True)]
        self.work, self.before = work, Work(work.scored - done.scored, work.nans - done.nans, times)

    def _done(self) -> Work:
        """The work since counting began."""
        work, before = self.work, self.before
        times = [now - then for now, then in zip(work.times, before.times, strict=True)]
        return Work(work.scored - before.scored, work.nans - before.nans, times)

    def state(self) -> VersionSignals:
        done = self._done()
        return VersionSignals(
            asked=self.asked,
            errors=self.errors,
            rows=self.rows,
            answered=self.answered,
            decisions=dict(self.decisions),
            times=tuple(self.times),
            scored=done.scored,
            nans=done.nans,
            scoring_times=tuple(done.times),
        )


@dataclass
class _Pair:
    """Rows that both versions scored."""

    rows: int = 0
    comparable: int = 0
    agreed: int = 0
    champion_decisions: Counter[str] = field(default_factory=Counter)
    challenger_decisions: Counter[str] = field(default_factory=Counter)
    champion_groups: Counter[str] = field(default_factory=Counter)
    challenger_groups: Counter[str] = field(default_factory=Counter)

    def compare(self, champion: ServedTask, challenger: ServedTask, old: Scores, new: Scores) -> None:
        self.rows += len(old)
        if (agreed := champion.agree(old, challenger, new)) is not None:
            self.comparable += len(agreed)
            self.agreed += int(np.count_nonzero(agreed))
        _count(self.champion_decisions, champion.decided(old))
        _count(self.challenger_decisions, challenger.decided(new))
        # Ranges with the same names may have other bounds: those of the champion count for both.
        by = champion if champion.groups == challenger.groups else challenger
        _count(self.champion_groups, [champion.groups[place] for place in champion.grouped(old).tolist()])
        _count(self.challenger_groups, [by.groups[place] for place in by.grouped(new).tolist()])

    def state(self) -> PairSignals:
        return PairSignals(**vars(self))


def _count(counts: Counter[str], names: Sequence[str]) -> None:
    """As `counts.update(names)` without the empty ones, in a fifth of its time for a single name."""
    for name in names:
        if name:
            counts[name] += 1


class RolloutSignals:
    """Implements Signals. The watcher calls `begin` when the state of traffic changes."""

    def __init__(self, spec: ModelSpec, replica: str = "") -> None:
        #: Its name.
        self.replica = replica
        self._model = spec.name
        self._lock = threading.Lock()
        self._begin(Traffic())

    def begin(self, traffic: Traffic) -> None:
        """Start counting at zero, unless requests are treated the same in `traffic` as before."""
        with self._lock:
            if _State.of(traffic) != self._state:
                self._begin(traffic)
                return
            for loaded in traffic.by_alias.values():
                if loaded.version in self._versions:
                    self._versions[loaded.version].go_on_with(loaded.model)

    def _begin(self, traffic: Traffic) -> None:
        self._state, self._since, self._began = _State.of(traffic), datetime.now(UTC), time.monotonic()
        self._versions = {loaded.version: _Version.of(loaded.model) for loaded in traffic.by_alias.values()}
        self._pair = _Pair()

    def answered(
        self,
        version: int,
        role: AnsweringRole,
        seconds: Sequence[float],
        decisions: Mapping[str, int],
        received: float | None = None,
    ) -> None:
        with self._lock:
            counts = self._counting(version, role, max(seconds) if received is None else received)
            if counts is None:
                return
            for decision, rows in decisions.items():
                counts.asked += rows
                counts.rows += rows
                counts.answered += rows
                if decision:
                    counts.decisions[decision] += rows
            for each in seconds:
                counts.times[bisect_left(TIME_BUCKETS, each)] += 1

    def failed(self, version: int, role: AnsweringRole, seconds: float, rows: int) -> None:
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
            answers = self._versions[answering].task
            if self._state.traffic.mode == "shadow":
                self._pair.compare(answers, counts.task, scores, shadow_scores)
            else:
                self._pair.compare(counts.task, answers, shadow_scores, scores)

    def _compares(self, answering: int, shadow: int, seconds: float) -> bool:
        champion, challenger = self._state.champion, self._state.challenger
        # The mode decides who answers and who shadows. Another pair belongs to a request from before.
        pair = (champion, challenger) if self._state.traffic.mode == "shadow" else (challenger, champion)
        return (answering, shadow) == pair and time.monotonic() - seconds >= self._began

    def _counting(self, version: int, role: AnsweringRole, seconds: float) -> _Version | None:
        """The counts for a request; None when it began before the traffic changed, or is pinned to a version."""
        if role == "pinned" or time.monotonic() - seconds < self._began:
            return None
        return self._versions.get(version)

    def snapshot(self) -> contract.Signals:
        with self._lock:
            return contract.Signals(
                replica=self.replica,
                traffic=self._state.traffic,
                champion=self._state.champion,
                challenger=self._state.challenger,
                since=self._since,
                versions={version: counts.state() for version, counts in self._versions.items()},
                pair=self._pair.state(),
            )


class _State(NamedTuple):
    """What makes one state of traffic differ from another. `previous` answers no requests."""

    #: Versions; None where there is none.
    champion: int | None
    challenger: int | None
    digests: tuple[str, ...]
    traffic: Desired

    @classmethod
    def of(cls, traffic: Traffic) -> "_State":
        both = (traffic.champion, traffic.challenger)
        champion, challenger = (each.version if each else None for each in both)
        return cls(champion, challenger, tuple(each.digest for each in both if each), traffic.state)
