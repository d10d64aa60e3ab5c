"""The protocol of engines that run the feature SQL of a model and join its feature rows to events."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds


class SqlError(Exception):
    """A query does not compile or does not run. The message is the engine's."""


@dataclass(frozen=True)
class LakeRows:
    """Rows of a table of the lake at a version: those whose `column` is at least `start` and less than `end`.

    An engine that runs elsewhere reads the files itself.
    """

    #: The folder or URI of the table.
    uri: str
    #: All rows of the version, with the paths of the files below `uri`.
    table: ds.FileSystemDataset
    column: str
    start: date | datetime
    end: date | datetime
    #: Columns by which the table is partitioned → the value that the rows have.
    partition: Mapping[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> ds.Expression:
        found = (ds.field(self.column) >= self.start) & (ds.field(self.column) < self.end)
        for name, value in self.partition.items():
            found &= ds.field(name) == value
        return found

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    def dataset(self) -> ds.Dataset:
        """These rows for a reader in this process."""
        return self.table.filter(self.wanted)


@dataclass(frozen=True)
class MadeRows:
    """Rows that are made of others: by `make` in this process, or by `sql` where an engine runs. Both make the same."""

    schema: pa.Schema
    make: Callable[[], pa.Table]
    #: A SELECT of the columns of `schema`.
    sql: str
    #: By the names that `sql` uses, which no other relation has.
    relations: Mapping[str, LakeRows | pa.Table]


#: What an engine reads.
Relation: TypeAlias = LakeRows | MadeRows | ds.Dataset | pa.Table


def in_order(found: pa.Table, rows: int) -> pa.Table:
    """`found` as [rows]: its row with the number i in the column `row` is row i. The others are null."""
    place = np.full(rows, -1)
    place[found["row"].to_numpy()] = np.arange(len(found))
    return found.drop_columns("row").combine_chunks().take(pa.array(place, mask=place < 0))


def in_this_process(relation: Relation) -> ds.Dataset | pa.Table:
    """`relation` for a reader in this process."""
    if isinstance(relation, MadeRows):
        return relation.make()
    return relation.dataset() if isinstance(relation, LakeRows) else relation


@dataclass(frozen=True)
class TimedRows:
    """Feature rows, of which each holds for its entity from its own time on."""

    rows: Relation
    #: Column of an event → the column of `rows` that it must equal. At least one.
    keys: Mapping[str, str]
    #: The column of `rows` with a row's time (timestamp, UTC).
    time: str
    #: The columns to look up.
    columns: Sequence[str]
    #: The column of `rows` that says when a row was made.
    created: str | None = None
    #: How long a row holds. None: until the next row of its entity.
    ttl: timedelta | None = None


class FeatureEngine(Protocol):
    """A member of the registry FEATURE_ENGINES. Every method raises SqlError.

    When the store of a relation does not answer or refuses us, TransientError or ConfigError.
    """

    #: Whether it computes in this process.
    is_local: bool

    def parameters(self, sql: str) -> set[str]:
        """The names of the parameters of one SELECT, such as `start` for `$start`."""
        ...

    def clock_functions(self, sql: str) -> list[str]:
        """The functions of the current time or day that the SELECT calls, sorted."""
        ...

    def execute(self, sql: str, parameters: Mapping[str, date], relations: Mapping[str, Relation]) -> pa.Table:
        """The result of the SELECT. Its days are UTC days, whatever the time zone of the machine.

        `relations`: by the names that the SQL uses. The types of the result are those of DuckDB.
        """
        ...

    def newest(self, events: pa.Table, time: str, features: TimedRows) -> pa.Table:
        """The feature row of each event that was the newest at the event's `time` (timestamp, UTC).

        It has all keys of the event, and its time is at most the event's and at least the event's less the ttl. Of
        several rows of one entity and time, the one with the newest `created` counts. One without `created` comes last,
        and rows that are still equal are ordered by their values, so that the result is always the same.

        Returns the columns `features.columns` with one row for each event, in the order of the events. They are null
        where there is no such row, or where a key or the time of the event is null.
        """
        ...


#: What is done with some events, and for each view with their feature rows. Returns messages. The files are those that
#: the caller has sent along, by name.
Work: TypeAlias = Callable[[pa.Table, Sequence[pa.Table], Mapping[str, Path]], Iterable[bytes]]


@dataclass(frozen=True)
class AskedEvents:
    """Events of the lake that are joined with feature rows where an engine runs."""

    rows: LakeRows
    #: The columns that the work takes.
    columns: Sequence[str]
    time: str
    key: str
    #: Events whose `key` is among these are left out.
    without: pa.Array


@runtime_checkable
class TaskEngine(Protocol):
    """An engine that also runs tasks of ours where it runs, in several processes."""

    def run_tasks(self, count: int, task: Callable[[int], Iterable[bytes]]) -> Iterator[bytes]:
        """The messages of the tasks 0 to `count` - 1, in this order, as they arrive.

        `task` must be picklable; of this project's code it may import what needs no more than Arrow, Great
        Expectations, pydantic and what those need. Raises SqlError, and ConfigError when those are missing there.
        """
        ...


@runtime_checkable
class RemoteEngine(Protocol):
    """An engine that also works on joined rows where it runs, so that they need not pass through this process."""

    def map_joined(
        self, events: AskedEvents, views: Sequence[TimedRows], work: Work, files: Mapping[str, bytes]
    ) -> Iterator[bytes]:
        """The messages of `work`, in no order, as they arrive.

        `work` gets some of the events with their columns, and for each of `views` a table of its columns as `newest`
        returns it. It must be picklable; of this project's code it may import what needs no more than NumPy, pandas,
        Arrow, delta-rs, pydantic and ONNX Runtime. Raises SqlError, and ConfigError when those are missing there.
        """
        ...
