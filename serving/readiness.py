"""Checks every second whether each champion can answer: look up a golden event, compute its features, score it.

A champion that has answered a request in the last second needs no check, unless the last lookup of a request failed.
Where requests are answered without the online store while it is away, a champion can answer without it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from serving.lookup import Lookup
from serving.metrics import ModelMetrics
from serving.traffic import Traffic
from training.contract.errors import StepError

PROBE_SECONDS = 1.0
#: Limit for the score of one event. It is generous, because a busy machine delays the thread.
SCORE_SECONDS = 5.0
UNCHECKED = "The champion has not been checked yet"

log = logging.getLogger("perennial")


class Probe:
    """The check of one model. `traffic` returns who answers now; `answered_lately(version, seconds)` whether that
    version did so in the last seconds, with features from the online store.

    Checks are neither counted nor logged as predictions.
    """

    def __init__(
        self,
        lookup: Lookup,
        traffic: Callable[[], Traffic],
        answered_lately: Callable[[int, float], bool],
        metrics: ModelMetrics,
    ) -> None:
        #: Why the champion could not answer at the last check; None when it could, or is unloaded.
        self.problem: str | None = UNCHECKED
        self._lookup, self._traffic, self._metrics = lookup, traffic, metrics
        self._answered_lately = answered_lately

    async def look(self) -> None:
        """Check now, and keep the outcome in `problem`."""
        problem = await self._check()
        if problem not in (self.problem, UNCHECKED, None):
            log.warning("The champion cannot answer: %s", problem)
        self.problem = problem
        self._metrics.breaker(self._lookup.breaker.state)

    async def _check(self) -> str | None:
        traffic = self._traffic()
        champion = traffic.champion
        if champion is None:
            return None if traffic.can_answer else UNCHECKED
        if self._lookup.problem is None and self._answered_lately(champion.version, PROBE_SECONDS):
            return None
        try:
            found = await self._lookup.probe(champion.probe, champion.plan.views)
            if champion.slow:  # It would delay answers.
                await asyncio.wait_for(asyncio.to_thread(champion.check, found), SCORE_SECONDS)
            else:
                champion.check(found)
        except StepError as error:
            return error.message
        except Exception as error:
            return f"Version {champion.version} could not score its probe event: {type(error).__name__}: {error}"
        return None


class Probed(Protocol):
    async def look(self) -> None:
        """Check now. Raises nothing."""


class Probes:
    """Has every model of `models` checked once per PROBE_SECONDS, spread over that time."""

    def __init__(self, models: Callable[[], Iterable[Probed]]) -> None:
        self._models = models
        self._running: dict[Probed, asyncio.Task[None]] = {}

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def close(self) -> None:
        self._task.cancel()
        for task in self._running.values():
            task.cancel()

    async def _look(self, model: Probed) -> None:
        try:
            await model.look()
        finally:
            del self._running[model]

    async def _watch(self) -> None:
        while True:
            models = list(self._models())
            for model in models:
                # The check of a model that hangs goes on; it does not delay those of the others.
                if model not in self._running:
                    self._running[model] = asyncio.get_running_loop().create_task(self._look(model))
                await asyncio.sleep(PROBE_SECONDS / len(models))
            if not models:
                await asyncio.sleep(PROBE_SECONDS)
