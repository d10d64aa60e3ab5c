"""The views of several feature plans, merged so that one lookup serves all of them."""

from collections.abc import Iterable, Sequence

from training.adapters.features.feature_plan import FeaturePlan
from training.adapters.features.views import View, ViewRows


class MergedViews:
    """The views of `plans`. When two plans use one view, each of its columns is read once."""

    def __init__(self, plans: Iterable[FeaturePlan]) -> None:
        merged: dict[tuple[str, str, str], dict[str, None]] = {}
        plans = tuple(plans)
        for plan in plans:
            for view in plan.views:
                merged.setdefault(view.source, {}).update(dict.fromkeys(view.names))
        self.views = tuple(View(*source, tuple(names)) for source, names in merged.items())
        #: Plan → for each of its views, the index in `views` and the indexes of its columns there (None: all columns).
        #: A plan whose views are exactly `views` has no entry.
        self._places = {plan: [self._place(view) for view in plan.views] for plan in plans if plan.views != self.views}

    def _place(self, view: View) -> tuple[int, list[int] | None]:
        index = [each.source for each in self.views].index(view.source)
        names = self.views[index].names
        return index, None if names == view.names else [names.index(name) for name in view.names]

    def rows_for(self, plan: FeaturePlan, rows: Sequence[ViewRows]) -> Sequence[ViewRows]:
        """Select the views and columns of `plan` from `rows`, which has one item for each of `views`."""
        places = self._places.get(plan)
        if places is None:
            return rows
        return [
            rows[index]
            if columns is None
            else ViewRows([[row[i] for i in columns] for row in rows[index].values], rows[index].stamps)
            for index, columns in places
        ]

    def missing(self, rows: int) -> list[ViewRows]:
        """The result for `rows` events whose entities the store does not have."""
        return [ViewRows.missing(view, rows) for view in self.views]
