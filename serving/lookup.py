"""Looks up the online features of requests: shared round trips, a deadline, and a circuit breaker per model.

training/adapters/features/online_stores has a reader for each kind of store. When the store is slow or away,
CT_SERVING_STORE_DOWN decides: 503 at once, or an answer with the defaults of the features, which says so
(`features_defaulted`).
"""

import asyncio
import logging
import time
from collections.abc import Sequence

from serving.breaker import Breaker
from serving.metrics import ModelMetrics
from serving.schema import BadRequest, Problem, Row
from training.adapters.features import MergedViews, View, ViewRows
from training.adapters.features.online_stores import ConcurrentReader, online_store
from training.contract.errors import StepError, TransientError
from training.settings import ServingSettings

log = logging.getLogger("perennial")


class StoreReader:
    """The connection to the online store, which all models share. Belongs to the event loop that calls `open`."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings, self._seconds = settings, settings.serving_lookup_seconds
        self._reader: ConcurrentReader | None = None
        self._prepared: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._prepared = asyncio.get_running_loop().create_task(self._prepare())

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

    async def look_up(self, rows: list[Row], views: Sequence[View]) -> list[ViewRows]:
        """The store's values for `rows`, one ViewRows per view. Raises TransientError when it does not answer."""
        if self._reader is None:
            await self._opened()
        assert self._reader is not None
        return await self._reader.find(rows, views)

    async def _opened(self) -> None:
        if self._prepared is None or (self._prepared.done() and self._prepared.exception()):
            self.open()
        assert self._prepared is not None
        try:
            await asyncio.wait_for(asyncio.shield(self._prepared), self._seconds)
        except TimeoutError:
            raise TransientError(f"The online store could not be opened in {self._seconds:g} s yet") from None
        except Exception as error:
            raise TransientError(f"The online store cannot be opened: {type(error).__name__}: {error}") from error

    async def _prepare(self) -> None:
        """Open the store in a thread, because importing Feast takes seconds."""
        self._reader = await asyncio.to_thread(lambda: online_store(self._settings).reader(self._seconds))


class Lookup:
    """The lookups of one model."""

    def __init__(self, store: StoreReader, settings: ServingSettings, metrics: ModelMetrics) -> None:
        self.breaker = Breaker()
        self._store, self._metrics = store, metrics
        self._when_down = settings.serving_store_down

    async def find(self, rows: list[Row], merged: MergedViews, shared: bool = False) -> list[ViewRows]:
        """The store's values for `rows`, one ViewRows per view of `merged.views`.

        When the store cannot be used, CT_SERVING_STORE_DOWN decides: no values, or BadRequest (503). Errors that the
        store did not cause, such as a row that cannot be read, do not count for the circuit breaker. `shared`: the rows
        belong to several requests. Then such an error is raised as it is, because one request alone may have caused it.
        """
        if not merged.views:
            return []
        if not self.breaker.allows():
            return self._without(rows, merged, "the online store is not called for a moment, after failures")
        began = time.perf_counter()
        try:
            found = await self._store.look_up(rows, merged.views)
        except (TransientError, TimeoutError) as error:
            self.breaker.failed()
            return self._failed(rows, merged, error)
        except Exception as error:
            self.breaker.undecided()
            if shared:
                raise
            return self._failed(rows, merged, error)
        except BaseException:
            self.breaker.undecided()  # The request was cancelled.
            raise
        self.breaker.succeeded()
        self._metrics.looked_up(time.perf_counter() - began)
        return found

    async def look_up(self, rows: list[Row], views: Sequence[View]) -> list[ViewRows]:
        """As `find`, without the circuit breaker. Raises TransientError when the store does not answer."""
        return await self._store.look_up(rows, views)

    def _failed(self, rows: list[Row], merged: MergedViews, error: Exception) -> list[ViewRows]:
        self._metrics.lookups_failed.inc()
        reason = error.message if isinstance(error, StepError) else f"{type(error).__name__}: {error}"
        log.warning("Lookup failed: %s", reason)
        return self._without(rows, merged, reason)

    def _without(self, rows: list[Row], merged: MergedViews, reason: str) -> list[ViewRows]:
        if self._when_down == "defaults":
            return merged.missing(len(rows))
        raise BadRequest(503, Problem(error=f"Features cannot be looked up: {reason}"), retry_after=1)
