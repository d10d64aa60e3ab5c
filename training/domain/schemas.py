"""Compare the schema of rows to write with the schema of the table that they are written to."""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.types as pt

from training.contract.names import more_than_once


class Difference(NamedTuple):
    """How the schema of new rows differs from a table's.

    `widened`: column whose type in the rows holds all values of its type in the table → a sentence about it. The table
    can be rewritten without loss; float64 holds whole numbers of int64 unless they are too large. `refused`: sentences
    about what the table cannot take.
    """

    widened: dict[str, str]
    refused: list[str]


def difference(table: pa.Schema, rows: pa.Schema) -> Difference:
    """Compare two schemas by column name, in any order. Ignores columns that only one of them has.

    Types that differ only in how Arrow encodes them (string and large_string, a dictionary and its values) are equal.
    """
    if clashes := _ambiguous(table.names, rows.names):
        return Difference({}, clashes)
    found = Difference({}, [])
    for name in [name for name in rows.names if name in table.names]:
        old, new = stored_type(table.field(name).type), stored_type(rows.field(name).type)
        conflicts = _conflicts(name, old, new)
        if conflicts and _holds(new, old):
            found.widened[name] = conflicts[0]
        else:
            found.refused.extend(conflicts)
    return found


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The Arrow type that a Delta table returns for values of type `kind`. Several types are stored as one."""
    if pt.is_dictionary(kind):
        return stored_type(kind.value_type)
    if pt.is_large_string(kind) or pt.is_string_view(kind):
        return pa.string()
    if pt.is_large_binary(kind) or pt.is_binary_view(kind):
        return pa.binary()
    if pt.is_large_list(kind) or pt.is_list(kind):
        return pa.list_(stored_type(kind.value_type))
    if pt.is_map(kind):
        return pa.map_(stored_type(kind.key_type), stored_type(kind.item_type))
    if pt.is_struct(kind):
        return pa.struct([(child.name, stored_type(child.type)) for child in kind])
    return kind


def _holds(wide: pa.DataType, narrow: pa.DataType) -> bool:
    """Whether `wide` has all values of `narrow`. Of int64, float64 has those that are small enough."""
    if pt.is_signed_integer(narrow):
        larger = pt.is_signed_integer(wide) and wide.bit_width > narrow.bit_width
        return larger or wide == pa.float64() or (wide == pa.float32() and narrow.bit_width <= 16)
    if pt.is_decimal(narrow) and pt.is_decimal(wide):
        return wide.scale >= narrow.scale and wide.precision - wide.scale >= narrow.precision - narrow.scale
    return bool(narrow == pa.float32() and wide == pa.float64())


def _ambiguous(table: list[str], rows: list[str]) -> list[str]:
    """Sentences about names that Delta cannot distinguish: repeated, or different only in upper and lower case."""
    if repeated := sorted(more_than_once(rows)):
        return [f"there are two columns {name}" for name in repeated]
    spelled: dict[str, str] = {}
    clashes = []
    for name in [*table, *rows]:
        other = spelled.setdefault(name.lower(), name)
        if other != name:
            clashes.append(f"the columns {other} and {name} differ only in upper and lower case")
    return sorted(set(clashes))


def _conflicts(path: str, table: pa.DataType, rows: pa.DataType) -> list[str]:
    """A sentence for each part of column `path` in which the types differ. Fields of structs may be missing."""
    if table == rows or pt.is_null(rows):
        return []
    if pt.is_struct(table) and pt.is_struct(rows):
        shared = [child.name for child in rows if table.get_field_index(child.name) >= 0]
        parts = [_conflicts(f"{path}.{name}", table.field(name).type, rows.field(name).type) for name in shared]
        return [sentence for part in parts for sentence in part]
    return [f"column {path} is {table} in the table and {rows} in the new rows"]
