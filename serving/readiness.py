"""Checks every second whether the champion can answer: look up a golden event, compute its features, score it."""

import asyncio
import logging
from collections.abc import Callable

from serving.loaded_model import LoadedModel
from serving.lookup import Lookup
from serving.metrics import Metrics
from training.contract.errors import StepError

PROBE_SECONDS = 1.0
#: How long the model may take for one event. A service that is slow for another reason is not the champion's fault.
SCORE_SECONDS = 5.0

log = logging.getLogger("perennial")


class Probe:
    """`champion` returns the version that answers now. The check is neither counted nor logged as a prediction."""

    def __init__(self, lookup: Lookup, champion: Callable[[], LoadedModel | None], metrics: Metrics) -> None:
        #: Why the champion could not answer; None when it could, or there is none.
        self.problem: str | None = "The champion has not been tried yet"
        self._lookup, self._champion, self._metrics = lookup, champion, metrics
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        while True:
            problem = await self._try()
            if problem != self.problem and problem is not None:
                log.warning("The champion cannot answer: %s", problem)
            self.problem = problem
            self._metrics.breaker(self._lookup.breaker.state)
            await asyncio.sleep(PROBE_SECONDS)

    async def _try(self) -> str | None:
        champion = self._champion()
        if champion is None:
            return None
        try:
            found = await self._lookup.look_up([champion.probe], champion.plan.views)
            # In a thread: a slow model must not hold up the answers.
            await asyncio.wait_for(asyncio.to_thread(champion.check, found), SCORE_SECONDS)
        except StepError as error:
            return error.message
        except Exception as error:
            return f"Version {champion.version} failed on a probe: {type(error).__name__}: {error}"
        return None
