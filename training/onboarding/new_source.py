"""Writes the spec of a new source, `feature_repo/<source>.yaml`, from a sample of its data."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from training import atomic
from training.contract.base import LONGEST_DAYS
from training.contract.errors import ConfigError, InputError
from training.contract.feeds import EVENTS, FeedSpec
from training.contract.names import NAME_PATTERN
from training.contract.problems import problems_of
from training.contract.source_rules import LAKE_TABLES
from training.contract.source_spec import SourceSpec, load_source_spec, source_names
from training.onboarding.feeds import LABELS, Delay, Feed, event_feed, is_file, label_delay, label_feed
from training.onboarding.first_features import Table, event_columns, known_later, tables
from training.onboarding.keys import Choice, choose_entities
from training.onboarding.rules import largest_gap, row_count_rules
from training.onboarding.yaml_text import WIDTH, comments, flow, line, scalar
from training.settings import StateSettings

_NONE = "none"


@dataclass(frozen=True)
class SourceWishes:
    """What a person says about a new source. Empty: guess.

    `labels`: columns of the events, separated by commas, or the file of a feed of labels. `entities`: columns,
    separated by commas, or `none`. `positive`: the value of a text label that becomes 1.
    """

    name: str
    data: Path
    labels: str = ""
    time: str = ""
    id: str = ""
    entities: str = ""
    labels_time: str = ""
    positive: str = ""
    owner: str = ""


@dataclass(frozen=True)
class NewSource:
    """The file that was written; `label_names`; `feeds`, of which `make land` lands the samples."""

    path: Path
    text: str
    label_names: tuple[str, ...]
    feeds: tuple[Feed, ...]


def new_source(wishes: SourceWishes, settings: StateSettings) -> NewSource:
    """Write the spec. Raises InputError when the sample cannot be used, or when there is a file of that name."""
    path = settings.feature_repo / f"{wishes.name}.yaml"
    require_free("source", wishes.name, path)
    events, labels, delay = _feeds(wishes)
    feeds = (events,) if labels is None else (events, labels)
    text = _Text(wishes, events, labels, delay, settings).text()
    fields = yaml.safe_load(text)
    try:
        SourceSpec.model_validate(fields)
    except ValidationError as error:
        listed = "; ".join(map(str, problems_of(error, str(path), SourceSpec, fields)))
        raise ConfigError(
            f"The sample {wishes.data} needs a spec written by hand: {listed}", "Rename or drop these columns."
        ) from error
    create(path, text)
    return NewSource(path, text, tuple(label for feed in feeds for label in feed.labels), feeds)


def require_free(kind: str, name: str, path: Path) -> None:
    """Raises InputError unless `name` can be the name of a new source or model, whose file would be `path`."""
    if not re.fullmatch(NAME_PATTERN, name):
        what = f"{name!r} is not a name for a {kind}"
        raise InputError(what, "Use a-z, digits and underscores, a letter first, at most 63.")
    if path.exists():
        raise InputError(f"{path} exists already", f"Choose another NAME, or remove the {kind} first.")


def create(path: Path, text: str) -> None:
    """Write `text` to `path`. Raises InputError when there is a file."""
    if not atomic.create(path, text.encode()):
        raise InputError(f"{path} exists already", "Choose another NAME. Nothing was overwritten.")


def _feeds(wishes: SourceWishes) -> tuple[Feed, Feed | None, Delay | None]:
    joined = is_file(wishes.labels)
    columns = [] if joined else [each.strip() for each in wishes.labels.split(",") if each.strip()]
    events = event_feed(wishes.data, wishes.time, wishes.id, columns, joined)
    labels = label_feed(Path(wishes.labels), wishes.labels_time, events) if joined else None
    _check_positive(wishes.positive, labels or events)
    return events, labels, None if labels is None else label_delay(events, labels)


def _check_positive(positive: str, feed: Feed) -> None:
    """Raises InputError when no label of `feed` has the text `positive`."""
    counts = {name: feed.columns[name].counts for name in feed.labels}
    if positive and not any(positive in values for values in counts.values()):
        listed = "; ".join(f"{name} has {', '.join(map(repr, values)) or 'many'}" for name, values in counts.items())
        raise InputError(f"No label has the value {positive!r}: {listed}", "Write POSITIVE=<one of a label's texts>.")


class _Text:
    """The text of a source spec."""

    def __init__(
        self, wishes: SourceWishes, events: Feed, labels: Feed | None, delay: Delay | None, settings: StateSettings
    ) -> None:
        self._wishes, self._events, self._labels, self._delay = wishes, events, labels, delay
        self._feeds = [events] if labels is None else [events, labels]
        taken = [events.time.column, events.id.column, *events.labels]
        wanted = None
        if wishes.entities:
            wanted = [] if wishes.entities == _NONE else [each.strip() for each in wishes.entities.split(",")]
        else:
            taken += [name for name, each in events.columns.items() if each.declared and known_later(events, each)]
        chosen = choose_entities(events.sample, events.columns, taken, wanted)
        self._others = _entity_types(settings)
        self._entities = [each for each in chosen if self._shareable(each)]
        names = [each.column for each in self._entities]
        self._rules = {feed.name: feed.rules(names, wishes.positive) for feed in self._feeds}
        self._features, self._no_features = event_columns(events, names)
        of_labels = {name: self._rules[feed.name][name] for feed in self._feeds for name in feed.labels}
        known = {*LAKE_TABLES, *(feed.name for feed in self._feeds)}
        self._tables = tables(wishes.name, events, of_labels, self._entities, self._features, known)

    def text(self) -> str:
        parts = [self._head(), self._feed_section(), self._label_section(), self._feature_section()]
        return "\n\n".join("\n".join(part) for part in parts) + "\n"

    def _head(self) -> list[str]:
        days = list(self._events.counts)
        path, rows = self._events.sample.path, self._events.sample.table.num_rows
        file = f"the files in {path.name}/" if path.is_dir() else path.name
        said = (
            f"Written by `make new-source` from {file}: {rows:,} rows of {days[0]} … {days[-1]}."
            " Types, rules and features are guesses from these rows, and the comments say from which figures. Correct"
            f" what you know better, then run `make check SOURCE={self._wishes.name}`. docs/your-model.md explains the"
            " sections."
        )
        title = self._wishes.name.replace("_", " ").capitalize()
        return [
            *comments(0, said),
            *line(0, "name", self._wishes.name),
            *line(0, "title", title),
            *line(0, "description", f"{title}, as in {file}."),
            *line(0, "owner", self._wishes.owner or "unknown", "who answers for the data"),
        ]

    def _feed_section(self) -> list[str]:
        return ["feeds:", *(text for feed in self._feeds for text in self._feed(feed))]

    def _feed(self, feed: Feed) -> Iterator[str]:
        yield f"  {feed.name}:"
        yield from line(4, "time_column", feed.time.column)
        yield from line(4, "id_column", feed.id.column)
        incomplete = feed.incomplete
        fields, comment = row_count_rules({day: rows for day, rows in feed.counts.items() if day not in incomplete})
        if fields:
            yield from line(4, "row_count", fields, comment)
        else:
            default = FeedSpec.model_fields["row_count"].default
            ratios = f"{default.minimum_ratio:g} to {default.maximum_ratio:g} times the median of the days before"
            yield from comments(4, f"{comment}: within the default of row_count, {ratios}.")
        for day in incomplete:
            yield from comments(
                4, f"The sample lacks a part of {day}: it does not count here, and `make land` omits it."
            )
        if (gap := largest_gap(feed.counts)) > FeedSpec.model_fields["maximum_gap_days"].default:
            yield from line(
                4, "maximum_gap_days", min(2 * gap, LONGEST_DAYS), f"the longest time without rows: {gap} days"
            )
        yield "    columns:"
        renamed = feed.sample.renamed
        for name, rules in self._rules[feed.name].items():
            called = f'"{renamed[name]}" in the sample' if name in renamed else ""
            yield from line(6, name, rules.fields, "; ".join(filter(None, [called, rules.comment])))
        for each in feed.left_out:
            yield from comments(6, f"Left out: {each.original} {each.left_out}.")

    def _label_section(self) -> list[str]:
        found = ["labels:"]
        if self._labels is None or self._delay is None:
            found += comments(
                2,
                "In the file of the events, so known with the event. If it becomes known later, deliver it in a feed"
                " of its own: a model must not learn from labels that were not known yet.",
            )
            return [*found, *(text for name in self._events.labels for text in line(2, name, {"feed": EVENTS}))]
        delay = self._delay
        said = f"99.5 % of the labels were reported within {_days(delay.days)}, the last one after {delay.most}."
        if delay.early > 0.01:
            said += f" {delay.early:.0%} were reported before the day of the event: check the times."
        found += comments(2, said)
        for name in self._labels.labels:
            fields: dict[str, Any] = {"feed": LABELS, "delay_days": delay.days}
            if self._only_positives(name):
                fields["unlabelled_after_delay"] = "negative"
                found += comments(2, "The sample has positives only, so an event without a report counts as negative.")
            found += line(2, name, fields)
        return found

    def _only_positives(self, name: str) -> bool:
        assert self._labels is not None
        each = self._labels.columns[name]
        return each.is_constant and 1 in each.counts

    def _feature_section(self) -> list[str]:
        found = ["features:"]
        if self._no_features:
            found += comments(2, "No features as they are:")
            for reason in dict.fromkeys(self._no_features.values()):
                names = [name for name, why in self._no_features.items() if why == reason]
                found += comments(2, f"- {', '.join(names)}: {reason}")
        if self._features:
            found += _listed(2, "event_columns", self._features)
        if not self._tables:
            return [*found, *([] if self._features else ["  event_columns: []"]), *self._no_tables()]
        found.append("  tables:")
        for table in self._tables:
            found += self._table(table)
        return found

    def _no_tables(self) -> list[str]:
        said = "No tables: no column seems to name something that has several events, as a customer has."
        return comments(2, said)

    def _table(self, table: Table) -> Iterator[str]:
        yield f"    {table.name}:"
        for at, (key, value) in enumerate(table.fields.items()):
            says_why = key == "label" or (at == 0 and "label" not in table.fields)
            yield from line(6, key, value, table.comment if says_why else "")
        yield "      aggregations:"
        for name, fields in table.aggregations.items():
            yield from line(8, name, fields)

    def _shareable(self, entity: Choice) -> bool:
        """Feast has one type for an entity of one name, whichever source it is in."""
        mine = self._events.columns[entity.column].key_kind
        return self._others.get(entity.column, mine) in (mine, "")


def _entity_types(settings: StateSettings) -> dict[str, str]:
    """Entity of the other sources → its kind."""
    found: dict[str, str] = {}
    for name in source_names(settings.feature_repo):
        try:
            spec = load_source_spec(name, settings.feature_repo)
        except ConfigError:  # `make check` reports it.
            continue
        found |= {entity: spec.events.columns[entity].kind for entity in spec.entities.values()}
    return found


def _days(count: int) -> str:
    return "the day of the event" if count == 0 else f"{count} day{'s' if count > 1 else ''}"


def _listed(indent: int, key: str, names: Sequence[str]) -> list[str]:
    """A list in one line, or below its key."""
    margin = " " * indent
    if len(text := f"{margin}{key}: {flow(names)}") <= WIDTH:
        return [text]
    lines = [f"{margin}{key}:", f"{margin}  ["]
    for at, name in enumerate(names):
        last = at == len(names) - 1
        word = scalar(name) + ("]" if last else ",")
        if len(lines[-1]) + len(word) + 1 > WIDTH:
            lines.append(f"{margin}   ")
        lines[-1] += word if lines[-1].endswith("[") or lines[-1].endswith("   ") else f" {word}"
    return lines
