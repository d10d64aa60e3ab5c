"""The feeds of a new source: a sample of events, and perhaps one of labels, with what was chosen of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.contract.base import Days
from training.contract.errors import InputError
from training.contract.feeds import EVENTS
from training.domain.arrow_types import utc_days
from training.onboarding.complete_days import all_days, complete_days
from training.onboarding.keys import MADE_ID, Choice, choose_id, choose_time
from training.onboarding.profile import Profile, profile_of, profiles
from training.onboarding.rules import Rules, column_rules, day_counts, joined, key_rules, label_rules
from training.onboarding.sample import READABLE, Sample, read_sample

LABELS = "labels"
#: Names that a label often has.
_LABEL_NAMES = ("label", "target", "y", "outcome", "class")
#: The delay is that of this share of the labels.
_PUNCTUAL = 0.995


@dataclass(frozen=True)
class Feed:
    """A feed of a new source.

    `labels`: the columns that are labels. `counts`: day → rows. `days`: those of which the sample has all rows.
    """

    name: str
    sample: Sample
    columns: dict[str, Profile]
    time: Choice
    id: Choice
    labels: tuple[str, ...]
    counts: dict[date, int]
    days: Days

    @property
    def incomplete(self) -> list[date]:
        """The days of which the sample lacks a part."""
        return [day for day in self.counts if not self.days.start <= day < self.days.end]

    @property
    def left_out(self) -> list[Profile]:
        """Columns of the file that the spec does not have."""
        return [each for each in self.columns.values() if each.declared is None]

    def rules(self, entities: Sequence[str], positive: str) -> dict[str, Rules]:
        """Column → its rules, the id first if it is made."""
        found: dict[str, Rules] = {}
        if self.id.column == MADE_ID and MADE_ID not in self.columns:
            made = "made by `make land` of the day and a number"
            found[MADE_ID] = Rules({"type": "string", "unique": True}, joined([made, self.id.why]))
        first = [name for name in (self.id.column, self.time.column) if name in self.columns]
        for name in dict.fromkeys([*first, *self.columns]):
            each = self.columns[name]
            if each.declared is None:
                continue
            if name == self.id.column:
                found[name] = key_rules(each, each.is_unique, self.id.why)
            elif name == self.time.column:
                found[name] = Rules({"type": "timestamp"}, joined([_time_comment(each), self.time.why]))
            elif name in self.labels:
                found[name] = label_rules(each, positive if positive in each.counts else "")
            elif name in entities:
                found[name] = key_rules(each, False, f"{each.distinct:,} values")
            else:
                found[name] = column_rules(each, self.sample.table[name], self.sample.table[self.time.column])
        return found


def _time_comment(each: Profile) -> str:
    return "" if each.file_type.startswith("timestamp") else f"{each.file_type} in the sample"


def event_feed(data: Path, time: str, identity: str, labels: Sequence[str], apart: bool) -> Feed:
    """The feed of events. `labels`: the columns that are labels; `apart`: labels are in a file of their own.

    Raises InputError when the sample cannot be a feed of events.
    """
    sample = read_sample(data)
    found = profiles(sample)
    chosen, typed = choose_time(sample, found, time)
    found = _retyped(typed, found, chosen.column)
    key = choose_id(typed, found, chosen.column, identity, apart)
    names = tuple(dict.fromkeys(sample.column(label) for label in labels))
    if not names and not apart:
        names = (_guessed_label(sample, found),)
    for name in names:
        _check_label(sample, found[name], chosen.column, key.column)
    times = typed.table[chosen.column]
    return Feed(EVENTS, typed, found, chosen, key, names, day_counts(times), complete_days(times))


def label_feed(data: Path, time: str, events: Feed) -> Feed:
    """The feed of labels in the file `data`, which has the id of the events and the time when a label was known.

    Raises InputError when it has not.
    """
    sample = read_sample(data)
    if events.id.column not in sample.original:
        what = f"{data} has no column {events.id.column}, the id of the events"
        raise InputError(what, f"Give both files that column, or name another as ID. Its columns: {_names(sample)}.")
    found = profiles(sample)
    try:
        chosen, typed = choose_time(sample, found, time)
    except InputError as error:
        hint = (
            "Labels in a file of their own need the time when each was known (LABELS_TIME). Labels that are known with"
            " the event belong into the file of the events."
        )
        raise InputError(error.message, f"{hint} {error.hint}") from error
    found = _retyped(typed, found, chosen.column)
    key = found[events.id.column]
    of_events = events.columns[events.id.column]
    if not key.key_kind or key.key_kind != of_events.key_kind:
        what = f"{key.name} is {key.file_type} in {data} and {of_events.file_type} in the events"
        raise InputError(what, "Give the id the same type in both files.")
    if key.nulls:
        what = f"{data}: {key.name} is missing in {key.nulls:,} rows, but it identifies the event of a label"
        raise InputError(what, "Leave these rows out.")
    names = tuple(name for name, each in found.items() if name not in (chosen.column, key.name) and _learnable(each))
    if not names:
        raise InputError(f"{data} has no column that could be a label", f"Its columns: {_names(sample)}.")
    times = typed.table[chosen.column]
    # Labels of the sample's first events come slowly: a day with few of them is whole.
    return Feed(LABELS, typed, found, chosen, Choice(key.name), names, day_counts(times), all_days(times))


def is_file(labels: str) -> bool:
    """Whether `labels` names a file or a folder, not columns."""
    return labels.lower().endswith(READABLE) or ("/" in labels and Path(labels).is_dir())


@dataclass(frozen=True)
class Delay:
    """How late labels are: the days within which _PUNCTUAL of them were reported, the most, and the share before."""

    days: int
    most: int
    early: float


def label_delay(events: Feed, labels: Feed) -> Delay:
    """Days from an event to its label, from the rows that both samples have.

    Raises InputError when they have none in common.
    """
    key = events.id.column
    first = pa.table({"id": events.sample.table[key], "at": events.sample.table[events.time.column]})
    second = pa.table({"id": labels.sample.table[key], "known": labels.sample.table[labels.time.column]})
    second = second.set_column(0, "id", second["id"].cast(first["id"].type))
    both = first.join(second, "id", join_type="inner")
    if not both.num_rows:
        what = f"No {key} of {labels.sample.path} is in {events.sample.path}"
        raise InputError(what, "The labels refer to events by this column: check both files.")
    days = [_day_numbers(both[name]) for name in ("known", "at")]
    late = np.sort(days[0] - days[1])
    typical = int(late[math.ceil(_PUNCTUAL * len(late)) - 1])
    return Delay(max(typical, 0), max(int(late[-1]), 0), float(np.mean(late < 0)))


def _day_numbers(times: pa.ChunkedArray) -> np.ndarray:
    return utc_days(times).cast(pa.int32()).to_numpy()


def _retyped(sample: Sample, found: dict[str, Profile], time: str) -> dict[str, Profile]:
    """`found` with the profile of the column `time` as `sample` has it now, but with the type that the file has."""
    again = profile_of(time, sample.original[time], sample.table[time])
    return {**found, time: replace(again, file_type=found[time].file_type)}


def _guessed_label(sample: Sample, found: dict[str, Profile]) -> str:
    named = [name for name in found if name.lower() in _LABEL_NAMES]
    if len(named) == 1:
        return named[0]
    raise InputError(
        "No label is named, so there is nothing to predict",
        "Write LABELS=<column>, or LABELS=<file> for labels in a file of their own."
        f" The columns of {sample.path}: {_names(sample)}.",
    )


def _check_label(sample: Sample, each: Profile, time: str, identity: str) -> None:
    if each.name in (time, identity):
        what = f"{each.name} is the {'time' if each.name == time else 'id'} of the event, not a label"
        raise InputError(what, "Name another column as LABELS.")
    if each.declared is None:
        raise InputError(f"The label {each.name} {each.left_out}", "Name another column as LABELS.")
    if each.is_constant:
        only = pc.unique(sample.table[each.name].drop_null())[0].as_py()
        what = f"The label {each.name} is {only!r} in all {each.known:,} rows that have one, so nothing can be learned"
        raise InputError(what, "Name another column as LABELS, or a sample with other values.")


def _learnable(each: Profile) -> bool:
    """Whether a column of a file of labels can be one. One value says something only where silence means another."""
    if each.is_constant and 1 not in each.counts:
        return False
    return each.kind in ("int", "float", "decimal", "bool") or (each.kind == "string" and bool(each.counts))


def _names(sample: Sample) -> str:
    return ", ".join(sample.original)
