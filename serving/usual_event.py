"""Reads the usual event without pydantic: for a caller who is alone, that saves CPU (docs/adr/0014).

Usual is an event with every column, each value in its plainest form. Pydantic reads all others: it knows what else is
allowed, and says what is wrong.
"""

import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from serving.field_types import MAXIMUM_STRING, clock, utc
from training.contract.model_spec import Column

#: The kinds of columns that this module reads.
_KINDS = {"int", "float", "string", "bool", "timestamp"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)?", re.ASCII)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_LARGEST = sys.float_info.max
#: Each integer up to this one is a float64, too.
_EXACT = 2**53


class UsualEvent:
    """The usual event with these columns."""

    @classmethod
    def of(cls, columns: Mapping[str, Column], time_column: str) -> "UsualEvent | None":
        """None when pydantic must read every event: it has a column of a type that this module does not know."""
        known = all(
            column.kind in _KINDS
            and (column.kind != "float" or column.parsed.bits == 64)
            and (column.allowed is None or column.kind == "string")
            for column in columns.values()
        )
        return cls(columns, time_column) if known else None

    def __init__(self, columns: Mapping[str, Column], time_column: str) -> None:
        self._columns = len(columns)
        of_kind = {kind: [(name, each) for name, each in columns.items() if each.kind == kind] for kind in _KINDS}
        #: Name, least and largest value, whether it may be null.
        self._floats = [(name, *_bounds(each, -_LARGEST, _LARGEST), each.nullable) for name, each in of_kind["float"]]
        self._ints = [(name, *_int_bounds(each), each.nullable) for name, each in of_kind["int"]]
        self._bools = [(name, each.nullable) for name, each in of_kind["bool"]]
        self._texts = [(name, each.allowed, each.nullable) for name, each in of_kind["string"]]
        self._times = [
            (name, clock if name == time_column else utc, *_bounds(each, _FIRST, _LAST), each.nullable)
            for name, each in of_kind["timestamp"]
        ]

    def read(self, body: bytes) -> dict[str, Any] | None:
        """The values that pydantic would give. None for an event that is not the usual one: pydantic decides."""
        try:
            row = orjson.loads(body)
            if type(row) is not dict or len(row) != self._columns:
                return None
            texts = self._checked(row)
        except (ValueError, KeyError):
            return None
        # Two quotation marks for each key and text: no key is given twice. RequestSchema says why that matters.
        if texts is None or b"\\" in body or body.count(b'"') != 2 * (self._columns + texts):
            return None
        return row

    def _checked(self, row: dict[str, Any]) -> int | None:
        """The number of texts in `row`; None when a value is not the usual one. Makes floats and times of values.

        Raises KeyError for a column that is missing, ValueError for a time that is none.
        """
        for name, low, high, nullable in self._floats:
            value = row[name]
            if type(value) is int and -_EXACT <= value <= _EXACT:
                value = row[name] = float(value)
            if not (low <= value <= high if type(value) is float else nullable and value is None):
                return None
        for name, low, high, nullable in self._ints:
            value = row[name]
            if not (low <= value <= high if type(value) is int else nullable and value is None):
                return None
        for name, nullable in self._bools:
            value = row[name]
            if not (type(value) is bool or (nullable and value is None)):
                return None
        texts = 0
        for name, allowed, nullable in self._texts:
            value = row[name]
            if type(value) is str:
                texts += 1
                if len(value) > MAXIMUM_STRING if allowed is None else value not in allowed:
                    return None
            elif not (nullable and value is None):
                return None
        for name, in_utc, low, high, nullable in self._times:
            value = row[name]
            if type(value) is str and _TIME.fullmatch(value):
                texts += 1
                time = row[name] = in_utc(datetime.fromisoformat(value))
                if not low <= time <= high:
                    return None
            elif not (nullable and value is None):
                return None
        return texts


def _bounds(column: Column, least: Any, largest: Any) -> tuple[Any, Any]:
    """The least and the largest value of the column; `least` and `largest` where it names none."""
    return least if column.low is None else column.low, largest if column.high is None else column.high


def _int_bounds(column: Column) -> tuple[int, int]:
    """As `_bounds`, within what its type holds."""
    low, high = column.parsed.range
    least, largest = _bounds(column, low, high)
    return max(least, low), min(largest, high)
