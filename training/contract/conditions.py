"""Conditions on the columns of an event, written in SQL: `amount > 100 AND channel = 'web'`.

A condition is an expression of columns, constants, operators and functions of a row. Subqueries, parameters and
comments are not possible, because every word must be a column, a function or one of a few words of SQL.
"""

import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from training.contract.names import did_you_mean

#: Words of SQL that an expression of one row needs. They are not columns unless they are quoted.
_WORDS = frozenset(
    [
        *("and", "or", "not", "in", "is", "null", "true", "false", "between", "like", "ilike", "escape", "distinct"),
        *("case", "when", "then", "else", "end", "cast", "as", "from", "interval"),
        *("date", "time", "timestamp", "integer", "bigint", "double", "float", "decimal", "varchar", "boolean"),
        *("year", "month", "day", "hour", "minute", "second"),
    ]
)
#: Without these words, and with none of the characters below, an expression of values is itself a value.
_MAY_BE_NULL = frozenset(["null", "case", "cast"])
_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*')|(?P<quoted>"(?:[^"]|"")+")|(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)"""
    r"""|(?P<word>[A-Za-z_]\w*)|(?P<space>\s+)|(?P<comment>--|/\*)|(?P<sign>::|<=|>=|<>|!=|\|\||[-+*/%<>=(),])"""
)
_FIX = "Write an SQL expression of the event's columns, such as `amount > 100 AND channel = 'web'`."

Mistake = tuple[str, str]


class _Token(NamedTuple):
    kind: str
    text: str
    #: The column that the token names, if it may name one.
    column: str | None = None


def condition_mistake(condition: str, columns: Collection[str]) -> Mistake | None:
    """What is wrong with `condition`, as (rest of a sentence, what to do). `columns`: those that it may use."""
    try:
        tokens = _tokens(condition, columns)
    except ValueError as error:
        return str(error), _FIX
    used = [token.column for token in tokens if token.column is not None]
    if unknown := [name for name in used if name not in columns]:
        meant = did_you_mean(unknown[0], columns)
        fix = f"{meant}Use the columns {', '.join(sorted(columns))}. Write a text in single quotes."
        return f"uses {unknown[0]!r}, which is not one of its columns", fix
    if not used:
        return "uses no column", _FIX
    depth = 0
    for token in tokens:
        depth += (token.text == "(") - (token.text == ")")
        if depth < 0:
            break
    return ("has parentheses that do not match", _FIX) if depth else None


def qualified(condition: str, names: Mapping[str, str]) -> str:
    """`condition` with each column replaced by its SQL in `names`."""
    tokens = _tokens(condition, names)
    return "".join(token.text if token.column is None else names[token.column] for token in tokens).strip()


def is_never_null(condition: str, nullable: Mapping[str, bool]) -> bool:
    """Whether `condition` surely has a value in every row. `nullable`: column → whether it may be null."""
    maybe = {name.lower() for name, may_be_null in nullable.items() if may_be_null}
    for token in _tokens(condition, nullable):
        if token.text.lower() in maybe:  # A word of SQL such as hour, which names a column here.
            return False
        if token.column is not None and nullable[token.column]:
            return False
        if token.kind == "function" or token.text in ("/", "%", "::") or token.text.lower() in _MAY_BE_NULL:
            return False
    return True


def columns_of(condition: str, columns: Collection[str]) -> set[str]:
    """The columns that `condition` uses."""
    return {token.column for token in _tokens(condition, columns) if token.column is not None}


def _tokens(condition: str, columns: Collection[str]) -> list[_Token]:
    """Raises ValueError, with the rest of a sentence, for what no condition may have."""
    folded = {name.lower(): name for name in columns}
    found, position = [], 0
    while position < len(condition):
        match = _TOKEN.match(condition, position)
        if match is None or match.lastgroup == "comment":
            raise ValueError(f"has {condition[position : position + 10]!r}, which a condition cannot have")
        kind, text, position = str(match.lastgroup), match.group(), match.end()
        if kind == "quoted":
            name = text[1:-1].replace('""', '"')
            found.append(_Token(kind, text, folded.get(name.lower(), name)))
        elif kind == "word" and text.lower() not in _WORDS:
            if condition[position:].lstrip().startswith("("):
                found.append(_Token("function", text))
            else:
                found.append(_Token(kind, text, folded.get(text.lower(), text)))
        else:
            found.append(_Token(kind, text))
    return found
