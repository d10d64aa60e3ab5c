"""Which rows are those of a person: an entity of a source, named by a column and a value."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from training.contract.artifact import Golden
from training.contract.errors import InputError

#: Values in one predicate. More would make it slow to parse.
AT_ONCE = 1000


@dataclass(frozen=True)
class Entity:
    """A value of an entity's column: a number, or text."""

    column: str
    value: int | str

    @property
    def predicate(self) -> str:
        """The SQL that its rows match."""
        return f"{self.column} = {literal(self.value)}"

    def __str__(self) -> str:
        """Without the value: for messages and logs."""
        return f"an entity of {self.column}"


def parse_entity(text: str, types: dict[str, pa.DataType]) -> Entity:
    """`column=value`. `types`: the columns that hold entities. Raises InputError, which does not repeat the value."""
    column, equals, value = text.partition("=")
    column, value = column.strip(), value.strip()
    if not equals or column not in types:
        hint = f"Columns that hold entities: {', '.join(types) or 'none'}."
        raise InputError("Name the entity as <column>=<value>", hint)
    kind = types[column]
    if pa.types.is_integer(kind):
        try:
            return Entity(column, int(value))
        except ValueError:
            raise InputError(f"{column} holds whole numbers, and the value is not one", f"Write {column}=7.") from None
    if not pa.types.is_string(kind) or not value:
        raise InputError(f"{column} holds {kind}: only text and whole numbers name an entity", "Name another column.")
    return Entity(column, value)


def literal(value: Any) -> str:
    """A number or a text as SQL writes it."""
    if isinstance(value, int):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"


def one_of(column: str, values: Iterable[Any]) -> list[str]:
    """SQL that the rows with one of `values` in `column` match, in several predicates when there are many."""
    ordered = sorted(values)
    parts = (ordered[at : at + AT_ONCE] for at in range(0, len(ordered), AT_ONCE))
    return [f"{column} IN ({', '.join(map(literal, part))})" for part in parts]


def quarantined(rows: Iterable[str], entity: Entity, id_column: str, ids: Collection[Any]) -> list[str]:
    """Those of the quarantined `rows`, JSON text, that are the entity's or have one of the events' `ids`.

    They broke a rule, so a value may have another type: `7`, `"7"` and `7.0` are the same here.
    """
    wanted, events = _plain(entity.value), {_plain(each) for each in ids}
    found = []
    for text in rows:
        row = json.loads(text)
        if isinstance(row, dict) and (_plain(row.get(entity.column)) == wanted or _plain(row.get(id_column)) in events):
            found.append(text)
    return sorted(set(found))


def without(golden: Golden, entity: Entity) -> Golden:
    """The golden rows that are not the entity's."""
    keep = [at for at, event in enumerate(golden.events) if _plain(event.get(entity.column)) != _plain(entity.value)]

    def kept(values: Sequence[Any]) -> list[Any]:
        return [values[at] for at in keep]

    changes = {name: kept(getattr(golden, name)) for name in ("features", "scores", "events", "batch")}
    return golden.model_copy(update=changes)


def _plain(value: Any) -> str:
    text = str(value).strip()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else text
