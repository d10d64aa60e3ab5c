"""The rows of a batch of requests, and what the online store has for them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.schema import Row
from training.adapters.features import Found, OnlineFeatures, Plan, Reads


@dataclass(slots=True)
class LookedUp:
    """What the online store has for rows: all that the versions need that may score them."""

    reads: Reads
    #: In the order of `reads.views`.
    found: Sequence[Found]

    def of(self, places: list[int]) -> "LookedUp":
        """The part for the rows at `places`."""
        found = [Found([each.values[i] for i in places], [each.stamps[i] for i in places]) for each in self.found]
        return LookedUp(self.reads, found)


@dataclass(slots=True)
class Batch:
    """Rows that one route answers: one row of each of several requests, or all rows of one request."""

    rows: list[Row]
    looked_up: LookedUp
    #: When each request was received (time.perf_counter).
    received: list[float]
    explain: bool = False
    _features: dict[Plan, OnlineFeatures] = field(default_factory=dict)

    def features(self, plan: Plan) -> OnlineFeatures:
        """The features by `plan`, computed once for all versions with it. Raises what its request features raise."""
        if plan not in self._features:
            self._features[plan] = plan.assemble(self.rows, self.looked_up.reads.of(plan, self.looked_up.found))
        return self._features[plan]

    def of(self, places: list[int]) -> "Batch":
        """A batch of the rows at `places`. Its features are computed again."""
        received = self.received if len(self.received) == 1 else [self.received[i] for i in places]
        return Batch([self.rows[i] for i in places], self.looked_up.of(places), received, self.explain)
