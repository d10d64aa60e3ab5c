"""The types of columns in a spec, and their values as a spec and JSON write them."""

import functools
import re
import struct
from datetime import UTC, date, datetime
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Literal, NamedTuple

Kind = Literal["int", "float", "decimal", "bool", "string", "date", "timestamp", "list"]

#: The largest number of digits of a decimal: Delta's limit.
DECIMAL_DIGITS = 38

#: Python's own context rounds to 28 digits.
_EXACT = Context(prec=2 * DECIMAL_DIGITS)
_BITS = {
    **{f"{sign}int{bits}": bits for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float32": 32,
    "float64": 64,
}
_NAMES = (*_BITS, "decimal(p, s)", "bool", "string", "category", "date", "timestamp", "list(float32)", "list(float64)")
#: How a text writes a decimal. Python would also take spaces, `1_0` and `NaN`.
DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_DECIMAL = re.compile(r"decimal\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)")
_LIST = re.compile(r"list\(\s*float(32|64)\s*(?:,\s*(\d{1,5})\s*)?\)")
#: A number without a point is not a date, and `1e3` is a number.
_ISO = re.compile(r"\d{4}-\d{2}-\d{2}.*")


class ColumnType(NamedTuple):
    """A type of a spec. `name` is its canonical text.

    `bits`: of an integer, a float, or the floats of a list. `precision` and `scale`: the digits of a decimal, and those
    of them after the point. `length`: the number of elements of every list; 0: any number.
    """

    name: str
    kind: Kind
    bits: int = 0
    signed: bool = True
    precision: int = 0
    scale: int = 0
    length: int = 0

    @property
    def range(self) -> tuple[int, int]:
        """The smallest and the largest integer. uint64 ends where int64 does, because Delta has no unsigned types."""
        if self.signed:
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2 ** min(self.bits, 63) - 1

    @property
    def whole(self) -> int:
        """The number up to which a float of this type holds all whole numbers."""
        return 2**24 if self.bits == 32 else 2**53


@functools.cache
def column_type(text: str) -> ColumnType:
    """The type that a spec writes as `text`. Raises ValueError when there is none."""
    if text in ("bool", "date", "timestamp", "string"):
        return ColumnType(text, text)  # type: ignore[arg-type]
    if text == "category":
        return ColumnType(text, "string")
    if text in _BITS:
        return ColumnType(text, "float" if "float" in text else "int", _BITS[text], signed=text[0] != "u")
    if found := _DECIMAL.fullmatch(text):
        precision, scale = map(int, found.groups())
        if not 1 <= precision <= DECIMAL_DIGITS or scale > precision:
            limits = f"has 1 to {DECIMAL_DIGITS} digits, and not more than that after the point"
            raise ValueError(f"is {text}, but a decimal {limits}")
        return ColumnType(f"decimal({precision}, {scale})", "decimal", precision=precision, scale=scale)
    if found := _LIST.fullmatch(text):
        bits, length = int(found[1]), int(found[2] or 0)
        name = f"list(float{bits}, {length})" if length else f"list(float{bits})"
        return ColumnType(name, "list", bits, length=length)
    raise ValueError(f"is {text!r}, which is not a type. The types are {', '.join(_NAMES)}")


def written_value(value: Any, of: ColumnType) -> Any:
    """A value that a spec writes, as Python has it: Decimal, date, datetime in UTC; a float32 is rounded to one.

    Raises ValueError when it is not of this type. Lists have no written values.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if of.kind == "int" and number and value == int(value) and of.range[0] <= value <= of.range[1]:
        return int(value)
    if of.kind == "float" and number:
        return as_float32(value) if of.bits == 32 else value
    if of.kind == "decimal" and (number or isinstance(value, str)):
        return exact_decimal(value, of)
    if (of.kind == "bool" and isinstance(value, bool)) or (of.kind == "string" and isinstance(value, str)):
        return value
    if of.kind == "date" and isinstance(value, str):
        return date.fromisoformat(value)
    if of.kind == "timestamp" and isinstance(value, str) and _ISO.fullmatch(value):
        time = datetime.fromisoformat(value)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    raise ValueError(f"{value!r} is not {of.name}")


def exact_decimal(value: float | str | Decimal, of: ColumnType) -> Decimal:
    """`value` with the digits of the decimal `of`. Raises ValueError when it has more."""
    if isinstance(value, str) and not DECIMAL.fullmatch(value):
        raise ValueError(f"{value!r} is not a decimal number")
    try:
        found = Decimal(str(value))
        scaled = _EXACT.scaleb(found, of.scale) if found.is_finite() else None
    except InvalidOperation:
        raise ValueError(f"{value!r} is not a decimal number") from None
    if scaled is None or scaled != int(scaled) or abs(int(scaled)) >= 10**of.precision:
        raise ValueError(f"{value} does not fit into {of.name}")
    return found


def whole_digits(value: Decimal, scale: int) -> int:
    """`value` as a whole number of its last digit, when it has `scale` digits after the point."""
    return int(_EXACT.scaleb(value, scale))


def as_float32(value: float) -> float:
    """The float32 next to `value`. Raises OverflowError beyond the range of float32."""
    found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return found
