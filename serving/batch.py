"""The rows of a batch of requests, and what the online store has for them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from serving.schema import Row
from training.adapters.features import FeaturePlan, MergedViews, OnlineFeatures, ViewRows


@dataclass(slots=True, frozen=True)
class LookedUp:
    """What the online store has for rows: all that the versions need that may score them."""

    merged_views: MergedViews
    #: In the order of `merged_views.views`.
    found: Sequence[ViewRows]

    def of(self, places: list[int]) -> "LookedUp":
        """The part for the rows at `places`."""
        found = [ViewRows([each.values[i] for i in places], [each.stamps[i] for i in places]) for each in self.found]
        return LookedUp(self.merged_views, found)

    @classmethod
    def joined(cls, parts: Sequence["LookedUp"]) -> "LookedUp":
        """Of the rows of all `parts`, one after the other. They have the same views."""
        found = [
            ViewRows([row for each in view for row in each.values], [stamp for each in view for stamp in each.stamps])
            for view in zip(*(part.found for part in parts), strict=True)
        ]
        return cls(parts[0].merged_views, found)


#: For requests without features from the online store.
NOTHING = LookedUp(MergedViews(()), ())


@dataclass(slots=True)
class Batch:
    """Rows that one route answers: one row of each of several requests, or all rows of one request."""

    rows: list[Row]
    looked_up: LookedUp
    #: When each request was received (time.perf_counter).
    received: list[float]
    explain: bool = False
    _features: dict[FeaturePlan, OnlineFeatures] = field(default_factory=dict)

    def features(self, plan: FeaturePlan) -> OnlineFeatures:
        """The features by `plan`, computed once for all versions with it. Raises what its request features raise."""
        if plan not in self._features:
            self._features[plan] = plan.assemble(
                self.rows, self.looked_up.merged_views.rows_for(plan, self.looked_up.found)
            )
        return self._features[plan]

    def has_features(self, plan: FeaturePlan) -> bool:
        """Whether `features` returns at once."""
        return plan in self._features

    def of(self, places: list[int]) -> "Batch":
        """A batch of the rows at `places`. Its features are computed again."""
        received = self.received if len(self.received) == 1 else [self.received[i] for i in places]
        return Batch([self.rows[i] for i in places], self.looked_up.of(places), received, self.explain)
