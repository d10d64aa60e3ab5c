"""The sections of a source spec: feeds, labels, feature tables."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from training.contract.base import Spec
from training.contract.columns import Column
from training.contract.errors import InputError
from training.contract.feature_tables import FeatureTable
from training.contract.feeds import EVENTS, FeedSpec
from training.contract.names import Name, did_you_mean
from training.contract.resources import StepResources
from training.contract.retention_spec import SourceRetention
from training.contract.spec_file import SpecFile


class LabelSpec(Spec):
    """A label is a column of a feed: of a feed of labels, or of the events."""

    feed: Name
    """The feed with the label's column. `events`: the label is in the event file. It is known from the event's time on,
    and it is not a field of a prediction request."""
    delay_days: int = Field(0, ge=0, le=36_500)
    """Days after the event within which its label has been reported: the gap between training and holdout. Required for
    a feed of labels, 0 for a label in the event file."""
    unlabelled_after_delay: Literal["missing", "negative"] = "missing"
    """How to treat an event that has no label by then. `negative` is for feeds that report positives only, such as
    chargebacks. A failed delivery of labels then looks like a time without positives (docs/your-model.md)."""


class SourceFeatures(Spec):
    event_columns: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Columns of the event that are features as they are."""
    tables: dict[Name, FeatureTable] = {}
    """The feature tables in the lake, each with a Feast view of the same name."""


@dataclass(frozen=True)
class LabelColumn:
    """A label of a source with what its feed says of it."""

    column: str
    feed: str
    id_column: str
    #: When the label was reported; for a label in the event file the time of the event.
    time_column: str
    delay_days: int
    unlabelled_after_delay: str
    #: Whether an event may have no label by design: a report without a value says so.
    nullable: bool = False


class SourceSections(SpecFile):
    """The sections of a source spec. What must hold between them is in source_rules.py."""

    feeds: dict[Name, FeedSpec]
    """`events` is required. Every other feed is a feed of labels."""
    labels: dict[str, LabelSpec] = Field(min_length=1)
    """Label → where it is. The name of a label is its column."""
    features: SourceFeatures = SourceFeatures()
    resources: StepResources = StepResources()
    retention: SourceRetention = SourceRetention()

    @property
    def events(self) -> FeedSpec:
        return self.feeds[EVENTS]

    @property
    def id_column(self) -> str:
        """The column that identifies an event, under the same name in all feeds."""
        return self.events.id_column

    @property
    def tables(self) -> list[str]:
        """The tables of feeds and features, which every model of the source shares."""
        return [*self.feeds, *self.features.tables]

    @property
    def feed_names(self) -> list[str]:
        """All feeds, `events` first. So events are ingested before the labels of the same day."""
        return [EVENTS, *self.label_feeds]

    @property
    def label_feeds(self) -> list[str]:
        """The feeds of labels, in the order of the spec."""
        return [name for name in self.feeds if name != EVENTS]

    @property
    def request_columns(self) -> dict[str, Column]:
        """The columns of an event that are the fields of a prediction request: all but the labels."""
        known_later = {name for name, label in self.labels.items() if label.feed == EVENTS}
        return {name: column for name, column in self.events.columns.items() if name not in known_later}

    @property
    def entities(self) -> dict[str, str]:
        """Feature table → its entity column."""
        return {name: table.entity for name, table in self.features.tables.items()}

    @property
    def history_days(self) -> int:
        """Days after an event in which it still changes some feature row."""
        return max(map(self.history_of, self.features.tables), default=0)

    def history_of(self, table: str) -> int:
        """Days after an event in which it still changes a row of `table`."""
        found = self.features.tables[table]
        return found.days_of_history(0 if found.label is None else self.labels[found.label].delay_days)

    @property
    def hourly_tables(self) -> list[str]:
        """The feature tables with a row per hour instead of day."""
        return [name for name, table in self.features.tables.items() if table.every == "1h"]

    def feed(self, name: str) -> FeedSpec:
        """The feed `name`. Raises InputError for an unknown one."""
        if name not in self.feeds:
            hint = f"{did_you_mean(name, self.feeds)}The feeds: {', '.join(self.feeds)}."
            raise InputError(f"The source {self.name} has no feed {name!r}", hint)
        return self.feeds[name]

    def label(self, name: str) -> LabelColumn:
        """The label `name`. Raises KeyError for an unknown one."""
        label = self.labels[name]
        feed = self.feeds[label.feed]
        return LabelColumn(
            name,
            label.feed,
            feed.id_column,
            feed.time_column,
            label.delay_days,
            label.unlabelled_after_delay,
            feed.columns[name].nullable,
        )

    def labels_of(self, feed: str) -> list[LabelColumn]:
        """The labels that `feed` reports."""
        return [self.label(name) for name, label in self.labels.items() if label.feed == feed]
