"""The definitions that compute the features of a model version online. They are part of the served artifact.

A view is a feature table whose newest rows are in the online store. A request view computes features from the event
itself and from features of views. The artifact holds its name, and the code image has its function.
"""

from collections.abc import Iterable

from pydantic import Field

from training.contract.base import Frozen


class FeatureColumn(Frozen):
    """One column of the matrix that a model gets."""

    name: str
    categories: tuple[str, ...] | None = None
    """The categories in the order of their codes. None: the column is a number."""
    may_be_missing: bool = False
    """Whether NaN may stand for a missing value. Always true where there are categories."""


class ViewColumn(Frozen):
    name: str
    type: str
    """Feast's ValueType, such as FLOAT."""
    default: float | None = 0.0
    """The value when there is none. None: it is missing, which models see as NaN. Texts have no default."""

    @property
    def is_text(self) -> bool:
        return self.type == "STRING"

    @property
    def may_be_missing(self) -> bool:
        """Whether a row may lack it: it is missing for the model then."""
        return self.default is None


class ViewDefinition(Frozen):
    name: str
    entity: str
    """The event column that holds the key."""
    entity_type: str
    """Feast's ValueType of the key, such as INT64."""
    ttl_seconds: float = Field(gt=0)
    """The maximum age of a row, at the time of the event."""
    columns: tuple[ViewColumn, ...] = Field(min_length=1)


class RequestViewDefinition(Frozen):
    name: str
    """The name of its function in `feature_repo/<source>.py`. Feast calls it an on-demand feature view."""
    features: tuple[str, ...] = Field(min_length=1)
    """The features that it computes."""
    event_columns: tuple[str, ...]
    source_features: tuple[str, ...]
    """The columns of views that it uses."""
    may_be_missing: tuple[str, ...] = ()
    """The features that stay NaN where the function returns NaN. The others become 0."""


class FeatureDefinitions(Frozen):
    views: tuple[ViewDefinition, ...]
    request_views: tuple[RequestViewDefinition, ...]
    event_features: tuple[str, ...] = ()
    """Columns of the event that are features as they are."""
    categories: dict[str, tuple[str, ...]] = {}
    """Feature that is a text → its categories, in the order of their codes."""

    def columns(self, names: Iterable[str]) -> tuple[FeatureColumn, ...]:
        """The columns of the matrix of the features `names`, in this order."""
        optional = {column.name for view in self.views for column in view.columns if column.may_be_missing}
        optional = optional.union(self.event_features, *(view.may_be_missing for view in self.request_views))
        return tuple(
            FeatureColumn(name=name, categories=self.categories.get(name), may_be_missing=name in optional)
            for name in names
        )

    @property
    def texts(self) -> set[str]:
        """The features of views that are texts."""
        return {column.name for view in self.views for column in view.columns if column.is_text}

    def made(self) -> set[str]:
        """The names of all features."""
        columns = {column.name for view in self.views for column in view.columns}
        return columns.union(self.event_features, *(view.features for view in self.request_views))

    def needed_for(self, names: Iterable[str]) -> "FeatureDefinitions":
        """The part of the definitions that the features `names` need."""
        wanted = set(names)
        request_views = tuple(view for view in self.request_views if wanted & set(view.features))
        wanted = wanted.union(*(view.source_features for view in request_views))
        views = []
        for view in self.views:
            if columns := tuple(column for column in view.columns if column.name in wanted):
                views.append(view.model_copy(update={"columns": columns}))
        return FeatureDefinitions(
            views=tuple(views),
            request_views=request_views,
            event_features=tuple(name for name in self.event_features if name in wanted),
            categories={name: listed for name, listed in self.categories.items() if name in wanted},
        )
