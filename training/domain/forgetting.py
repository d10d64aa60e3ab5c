"""Which rows are those of a person: an entity of a source, named by a column and a value."""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from training.contract.artifact import Golden
from training.contract.errors import InputError
from training.contract.names import did_you_mean
from training.domain.sql_names import quoted

#: Values in one predicate. More would make it slow to parse.
AT_ONCE = 1000
#: Python's `int` also takes 1_2, and digits of other scripts.
_WHOLE = re.compile(r"[+-]?0*[0-9]{1,19}")


@dataclass(frozen=True)
class Entity:
    """A value of an entity's column: a number, or text."""

    column: str
    value: int | str

    @property
    def predicate(self) -> str:
        """The SQL that its rows match, in a table whose column has the type of the spec."""
        return f"{quoted(self.column)} = {literal(self.value)}"

    def equals(self, expression: str) -> str:
        """SQL: whether an `expression` of whatever type is the entity's value."""
        return written_as(expression, [self.value])[0]

    def matches(self, value: Any) -> bool:
        """See `matcher`."""
        return matcher([self.value])(value)

    def __str__(self) -> str:
        """Without the value: for messages and logs."""
        return f"an entity of {self.column}"


def parse_entity(text: str, types: dict[str, pa.DataType]) -> Entity:
    """`column=value`. `types`: the columns that hold entities. Raises InputError, which does not repeat the value."""
    column, equals, value = text.partition("=")
    column = column.strip()
    if not equals or column not in types:
        problem = "The entity does not begin with a column of entities" if equals else "The entity has no ="
        columns = f"Columns that hold entities: {', '.join(types) or 'none'}."
        raise InputError(problem, f"{did_you_mean(column, types)}Write <column>=<value>. {columns}")
    kind = types[column]
    if pa.types.is_integer(kind):
        return Entity(column, _whole(value.strip(), column, kind))
    if not pa.types.is_string(kind) or not value:
        raise InputError(f"{column} holds {kind}: only text and whole numbers name an entity", "Name another column.")
    return Entity(column, value)


def _whole(value: str, column: str, kind: pa.DataType) -> int:
    if not _WHOLE.fullmatch(value):
        raise InputError(f"{column} holds whole numbers, and the value is not one", f"Write {column}=7.")
    number, limit = int(value), 1 << (kind.bit_width - 1)
    if not -limit <= number < limit:
        raise InputError(f"{column} holds {kind}, and the value is beyond that", "Check the value.")
    return number


def look_alikes(values: Iterable[str], entity: Entity) -> int:
    """How many of the distinct `values` differ from the entity's in case, spaces or Unicode form alone."""
    wanted = _folded(str(entity.value))
    return sum(value != entity.value and _folded(value) == wanted for value in set(values))


def _folded(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def literal(value: Any) -> str:
    """A number or a text as SQL writes it."""
    if isinstance(value, int):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"


def one_of(column: str, values: Iterable[Any]) -> list[str]:
    """SQL that the rows with one of `values` in `column` match, in several predicates when there are many."""
    return [f"{quoted(column)} IN ({', '.join(map(literal, part))})" for part in _parts(values)]


def written_as(expression: str, values: Iterable[Any]) -> list[str]:
    """As `one_of`, for an SQL `expression` whose type need not be that of `values`."""
    texts = {str(value) for value in values} | {f"{value}.0" for value in values if isinstance(value, int)}
    return [f"CAST({expression} AS VARCHAR) IN ({', '.join(map(literal, part))})" for part in _parts(texts)]


def _parts(values: Iterable[Any]) -> Iterable[list[Any]]:
    ordered = sorted(values)
    return (ordered[at : at + AT_ONCE] for at in range(0, len(ordered), AT_ONCE))


def matcher(values: Collection[Any]) -> Callable[[Any], bool]:
    """Tells whether a value from JSON, or from a file that nobody has checked, is one of `values`.

    In a column of numbers `7`, `"7"` and `7.0` are the same. In one of texts `"7"` and `"007"` are not.
    """
    texts, wanted = any(isinstance(each, str) for each in values), {str(each) for each in values}
    return lambda value: value is not None and _written(value, texts) in wanted


def quarantined(rows: Iterable[str], entity: Entity, id_column: str, ids: Collection[Any]) -> list[str]:
    """Those of the quarantined `rows`, JSON text, that are the entity's or have one of the events' `ids`.

    They broke a rule, so a value may have another type.
    """
    is_person, is_event, found = matcher([entity.value]), matcher(ids), set[str]()
    for text in rows:
        row = json.loads(text)
        if isinstance(row, dict) and (is_person(row.get(entity.column)) or is_event(row.get(id_column))):
            found.add(text)
    return sorted(found)


def ids_of(rows: Iterable[str], entity: Entity, id_column: str, number: bool) -> set[Any]:
    """The ids of the entity's events among the quarantined `rows`, JSON text; `number`: ids are whole numbers."""
    found = {
        _written(row[id_column], not number)
        for row in map(json.loads, rows)
        if isinstance(row, dict) and entity.matches(row.get(entity.column)) and row.get(id_column) is not None
    }
    return {int(each) for each in found if _WHOLE.fullmatch(each)} if number else found


def without(golden: Golden, entity: Entity) -> Golden:
    """The golden rows that are not the entity's."""
    keep = [at for at, event in enumerate(golden.events) if not entity.matches(event.get(entity.column))]

    def kept(values: Sequence[Any]) -> list[Any]:
        return [values[at] for at in keep]

    changes = {name: kept(getattr(golden, name)) for name in ("features", "scores", "events", "batch")}
    return golden.model_copy(update=changes)


def _written(value: Any, text: bool) -> str:
    """How a value is written in a column of texts (`text`), or of whole numbers."""
    if text and isinstance(value, str):
        return value
    written = str(value).strip()
    try:
        number = math.nan if "_" in written else float(written)
    except ValueError:
        return written
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else written
