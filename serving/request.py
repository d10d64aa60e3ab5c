"""A prediction's request, and the HTTP response to it."""

from dataclasses import dataclass, field
from typing import NamedTuple

from serving.batch import NOTHING, LookedUp
from serving.schema import Row
from serving.traffic import Route


@dataclass(slots=True)
class PredictionRequest:
    rows: list[Row]
    #: When its head was complete (time.perf_counter).
    received: float
    #: The alias or version that shall answer, where the caller chose one.
    pinned: str | None = None
    explain: bool = False
    #: Who answers which of the rows, by their places in `rows`.
    routes: dict[Route, list[int]] = field(default_factory=dict)
    #: What the online store has for `rows`.
    looked_up: LookedUp = NOTHING

    @property
    def may_share_a_batch(self) -> bool:
        """Whether it may be answered together with other requests."""
        return len(self.rows) == 1 and self.pinned is None and not self.explain


JSON, OCTETS = b"application/json", b"application/octet-stream"


class HttpResponse(NamedTuple):
    """`headers` are those besides content-type and content-length."""

    status: int
    content: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = JSON
