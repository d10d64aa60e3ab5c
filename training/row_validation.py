"""Validates the rows of a landed partition: in the step's process, or in workers that read the files themselves."""

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from training.adapters.landing import Share, open_share
from training.contract.base import Days
from training.contract.errors import StepError
from training.contract.model_spec import FeedSpec
from training.domain.arrow_types import as_validation_frame
from training.domain.conform import Conformed, conform

if TYPE_CHECKING:
    from training.adapters.expectations import RowExaminer, RowFindings


class Findings(NamedTuple):
    """What was found in a batch. Its first row has the number `first` in the partition."""

    first: int
    examined: "RowFindings"
    #: The number of a column, the rule, and positions in the batch of the rows whose value does not fit its type.
    unfit: Sequence[tuple[int, str, np.ndarray]]


@dataclass(frozen=True)
class RowRules:
    """The rules for the rows of a feed: whose times must lie in the days `promised`. It can be pickled."""

    feed: FeedSpec
    promised: Days

    def judge(self, first: int, batch: Conformed) -> Findings:
        """A value that did not fit its type is null now, but does not count as missing."""
        from training.adapters.expectations import missing_rule

        found = _examiner(self.feed.model_dump_json(), self.promised).examine(as_validation_frame(batch.table))
        unfit = []
        for number, (column, reasons) in enumerate(batch.unfit.items()):
            positions = {rule: np.array(rows, np.int64) for rule, rows in reasons.items()}
            unfit += [(number, rule, rows) for rule, rows in positions.items()]
            if (missing := missing_rule(column)) in found.positions:
                at = found.positions[missing]
                found.positions[missing] = at[~np.isin(at, np.concatenate([[-1], *positions.values()]))]
        return Findings(first, found, unfit)


@functools.lru_cache(maxsize=2)
def _examiner(feed: str, promised: Days) -> "RowExaminer":
    """Once in each process: Great Expectations takes seconds to import, and a suite some milliseconds to make."""
    from training.adapters.expectations import RowExaminer

    return RowExaminer(FeedSpec.model_validate_json(feed), promised)


@dataclass(frozen=True)
class ValidationWork:
    """Validates the rows of one of `shares` by its number. It can be pickled.

    `schema` is that of the landed rows. See training.domain.feature_engine.TaskEngine.
    """

    rules: RowRules
    shares: Sequence[Share]
    schema: pa.Schema
    maximum_bytes: int

    def __call__(self, number: int) -> Iterator[bytes]:
        """A message for each batch; only one, that says why, when this process cannot read the file."""
        share = self.shares[number]
        try:
            with open_share(share, self.schema, self.maximum_bytes) as landed:
                # All of them first: the step reads the whole share when one of its batches cannot be read.
                messages = [_written(each) for each in judged(self.rules, landed.batches(share), share.first)]
        except (OSError, StepError) as error:
            messages = [json.dumps({"share": number, "unread": str(error)}).encode()]
        yield from messages


def judged(rules: RowRules, tables: Iterator[pa.Table], first: int) -> Iterator[Findings]:
    """The findings in each of `tables`, landed rows of which the first has the number `first` in the partition."""
    for table in tables:
        yield rules.judge(first, conform(table, rules.feed))
        first += table.num_rows


class Unread(NamedTuple):
    """A worker could not read a share."""

    share: int
    why: str


def _written(found: Findings) -> bytes:
    examined = found.examined
    positions = {rule: at.tolist() for rule, at in examined.positions.items()}
    unfit = [(number, rule, at.tolist()) for number, rule, at in found.unfit]
    said = {"first": found.first, "rows": examined.rows, "told": examined.told, "positions": positions, "unfit": unfit}
    return json.dumps(said).encode()


def read_message(message: bytes) -> Findings | Unread:
    """What `ValidationWork` has put into a message."""
    from training.adapters.expectations import RowFindings, Told

    said: dict[str, Any] = json.loads(message)
    if "unread" in said:
        return Unread(said["share"], said["unread"])
    positions = {rule: np.array(at, np.int64) for rule, at in said["positions"].items()}
    unfit = [(number, rule, np.array(at, np.int64)) for number, rule, at in said["unfit"]]
    return Findings(said["first"], RowFindings(said["rows"], [Told(*each) for each in said["told"]], positions), unfit)
