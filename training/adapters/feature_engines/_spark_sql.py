"""Feature SQL, written for DuckDB, in Spark's dialect and with the same results.

sqlglot translates the syntax. This module rewrites what both engines accept and compute differently: division, casts
to integers and decimals, rounding, averages, infinite dates. A function that is not listed here is refused, because
nobody has compared its results: an error is better than a number that depends on the engine.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from training.domain.feature_engine import SqlError

#: Functions whose results are equal. A test compares each of them.
_SAME: frozenset[type[exp.Expr]] = frozenset(
    [
        *(exp.And, exp.Or, exp.Case, exp.If, exp.Coalesce, exp.Nullif, exp.Cast, exp.Abs, exp.Sqrt, exp.Floor),
        *(exp.Ceil, exp.Round, exp.Greatest, exp.Least, exp.Length, exp.IsNan, exp.MD5),
        *(exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.LogicalOr, exp.LogicalAnd),
        *(exp.Lead, exp.Lag, exp.RowNumber, exp.Rank, exp.Extract, exp.TimestampTrunc, exp.DateTrunc),
        *(exp.GenerateSeries,),
    ]
)
#: Parts of a time that both engines number alike.
_PARTS = {"YEAR", "QUARTER", "MONTH", "DAY", "HOUR", "MINUTE"}
#: Operators that are not functions to sqlglot, and whose patterns differ.
_REFUSED = (exp.SimilarTo, exp.Glob, exp.Collate, exp.TryCast)
_WHOLE = {exp.DType.TINYINT, exp.DType.SMALLINT, exp.DType.INT, exp.DType.BIGINT}
#: DuckDB's integers of 128 bits. Spark's widest integers are decimals.
_WIDE = {exp.DType.INT128, exp.DType.UINT128}
_DIGITS_64, _DIGITS_128 = 18, 38
#: Clauses of a SELECT whose result depends on the order.
_CUTS = ("limit", "offset", "distinct")
_HINT = re.compile(r"REPARTITION\((\w+)\)")
#: Later than all days, as DuckDB's infinity is. Spark has no infinite days.
_LAST_DAY = "9999-12-31"
#: A double is taken apart at this power of two: both parts are exact, and fit in 64 bits up to 10^34.
_HALF = 2**50


def spark_sql(sql: str, parameters: Mapping[str, date]) -> str:
    """The SELECT `sql` for Spark, with the values of its `parameters`.

    Column names get quotes. Raises SqlError for what cannot be translated.
    """
    try:
        [tree] = sqlglot.parse(sql, read="duckdb")
        if tree is None:
            raise SqlError("There is no statement")
        # Backwards: each node after the nodes in it.
        for node in reversed(list(tree.dfs())):
            new = _translated(node, parameters)
            if new is not node:
                tree = new if node is tree else tree
                node.replace(new)
        for select in tree.find_all(exp.Select):
            _give_hint(select)
        return tree.sql(dialect="spark", identify=True, comments=False)
    except (SqlglotError, ValueError) as error:
        raise SqlError(f"The query cannot be translated for Spark: {error}") from error


def unordered(sql: str) -> tuple[str, str]:
    """The SELECT `sql` without its last ORDER BY, and this clause: empty when the rows or columns depend on it."""
    try:
        tree = sqlglot.parse_one(sql, read="duckdb")
    except SqlglotError as error:
        raise SqlError(f"The query cannot be translated for Spark: {error}") from error
    order = tree.args.get("order")
    is_plain = isinstance(tree, exp.Select) and tree.is_star and not any(tree.args.get(name) for name in _CUTS)
    if order is None or not is_plain:
        return sql, ""
    order.pop()
    return tree.sql(dialect="duckdb"), order.sql(dialect="duckdb")


def _give_hint(select: exp.Select) -> None:
    """A comment such as `/* REPARTITION(x) */` after SELECT is a hint for Spark."""
    for comment in select.comments or []:
        if found := _HINT.fullmatch(comment.strip()):
            column = exp.column(exp.to_identifier(found[1], quoted=True))
            select.set("hint", exp.Hint(expressions=[exp.Anonymous(this="REPARTITION", expressions=[column])]))


def _translated(node: exp.Expr, parameters: Mapping[str, date]) -> exp.Expr:
    if isinstance(node, exp.Placeholder):
        if node.name not in parameters:
            raise SqlError(f"The parameter ${node.name} has no value")
        return exp.cast(exp.Literal.string(parameters[node.name].isoformat()), "date")
    if isinstance(node, exp.Literal) and node.is_string and node.this.lower() == "infinity":
        return exp.Literal.string(_LAST_DAY)
    if (rewrite := _REWRITES.get(type(node))) is not None:
        return rewrite(node)
    if isinstance(node, _REFUSED) or (isinstance(node, exp.Func) and type(node) not in _SAME):
        raise _unknown(node.name if isinstance(node, exp.Anonymous) else type(node).__name__)
    return node


def _unknown(name: str) -> SqlError:
    known = ", ".join(sorted({each.sql_name().lower() for each in _SAME} | {"epoch_us", "range"}))  # type: ignore[attr-defined]
    return SqlError(
        f"{name} is not among the functions whose results on Spark and on DuckDB were compared. Write the query "
        f"without it, or compute this source with CT_ENGINE=duckdb. Compared: {known}"
    )


def _named(node: exp.Anonymous) -> exp.Expr:
    """Functions that sqlglot does not know."""
    if node.name.lower() != "epoch_us":
        raise _unknown(node.name)
    return _parsed(f"unix_micros(CAST({_text(node.expressions[0])} AS TIMESTAMP))")


def _extract(node: exp.Extract) -> exp.Expr:
    if node.name.upper() not in _PARTS:
        raise _unknown(f"extract({node.name})")
    return node


def _like(node: exp.Like | exp.ILike) -> exp.Expr:
    if "\\" in str(node.expression.name):
        raise SqlError("A pattern of LIKE with a backslash means something else to Spark: compare in another way")
    return node


def _divided(node: exp.Div) -> exp.Expr:
    """A division of doubles by the rules of IEEE 754: by zero it is infinite or NaN, and not an error."""
    a, b = (f"CAST({_text(each)} AS DOUBLE)" for each in (node.this, node.expression))
    if isinstance(node.expression.unnest(), exp.Nullif) or _is_nonzero(node.expression):
        return _parsed(f"({a} / {b})")
    return _parsed(f"CASE WHEN {b} = 0 THEN {a} * CAST('Infinity' AS DOUBLE) ELSE {a} / {b} END")


def _whole_divided(node: exp.IntDiv | exp.Mod) -> exp.Expr:
    """Null when the divisor is zero."""
    if not _is_nonzero(node.expression):
        node.set("expression", exp.Nullif(this=node.expression.copy(), expression=exp.Literal.number(0)))
    return node


def _is_nonzero(node: exp.Expr) -> bool:
    return isinstance(node, exp.Literal) and not node.is_string and float(node.this) != 0


def _average(node: exp.Avg) -> exp.Expr:
    """Spark adds the integers of an average as doubles, whose sum depends on the order of rows."""
    if isinstance(node.parent, exp.Window):
        raise _unknown("avg() over a window")
    return node if isinstance(node.parent, exp.Filter) else _mean(_text(node.this))


def _filtered(node: exp.Filter) -> exp.Expr:
    if not isinstance(node.this, exp.Avg):
        return node
    return _mean(f"CASE WHEN {_text(node.expression.this)} THEN {_text(node.this.this)} END")


def _mean(value: str) -> exp.Expr:
    whole = f"CASE WHEN typeof({value}) LIKE '%int' THEN CAST({value} AS DECIMAL({_DIGITS_128}, 0)) END"
    total = f"CASE WHEN typeof(sum({value})) = 'bigint' THEN CAST(sum({whole}) AS DOUBLE) "
    total += f"ELSE CAST(sum({value}) AS DOUBLE) END"
    return _parsed(f"({total} / nullif(count({value}), 0))")


def _rounded(node: exp.Round) -> exp.Expr:
    """DuckDB rounds a double times a power of ten; Spark rounds its decimal digits."""
    value, digits = _text(node.this), node.args.get("decimals")
    if digits is None:
        return node
    if not (isinstance(digits, exp.Literal) and digits.name.isdigit()):
        raise _unknown("round() to another number of digits than 0, 1, …")
    return _by_type(value, f"round(CAST({value} AS DOUBLE) * 1E{digits}) / 1E{digits}", f"round({value}, {digits})")


def _cast(node: exp.Cast) -> exp.Expr:
    """DuckDB rounds to a whole number where Spark cuts off the fraction."""
    kind, value = node.to.this, _text(node.this)
    if kind in _WHOLE:
        name = node.to.sql("spark")
        whole = f"CASE WHEN typeof({value}) LIKE 'decimal%' THEN round({value}) ELSE {value} END"
        return _by_type(value, f"CAST(rint(CAST({value} AS DOUBLE)) AS {name})", f"CAST({whole} AS {name})")
    if kind in _WIDE:
        return _by_type(value, _whole(f"rint(CAST({value} AS DOUBLE))"), f"CAST({value} AS DECIMAL({_DIGITS_128}, 0))")
    if kind == exp.DType.DECIMAL:
        return _decimal(value, *(int(each.name) for each in node.to.expressions))
    return node


def _decimal(value: str, precision: int = _DIGITS_64, scale: int = 3) -> exp.Expr:
    """DuckDB rounds a double times a power of ten; Spark rounds its decimal digits."""
    kind = f"DECIMAL({precision}, {scale})"
    times = f"round(CAST({value} AS DOUBLE) * 1E{scale})"
    if precision <= _DIGITS_64:
        whole = f"CAST(CAST({times} AS BIGINT) AS DECIMAL({_DIGITS_64 + 1}, 0))"
    else:
        # Spark keeps six digits after the point of a product that has more than 38 digits.
        whole = f"CAST({_whole(times)} AS DECIMAL({_DIGITS_128 - 2 - scale}, 0))" if scale > 6 else _whole(times)
    shifted = f"{whole} * CAST('1E-{scale}' AS DECIMAL({scale + 1}, {scale}))" if scale else whole
    return _by_type(value, f"CAST({shifted} AS {kind})", f"CAST({value} AS {kind})")


def _whole(value: str) -> str:
    """A double without a fraction as a decimal of the same value. Spark's own cast takes its decimal digits."""
    high = f"floor({value} / {_HALF}D)"
    low = f"CAST(CAST({value} - {high} * {_HALF}D AS BIGINT) AS DECIMAL(17, 0))"
    return f"(CAST({high} AS DECIMAL(20, 0)) * CAST({_HALF} AS DECIMAL(17, 0)) + {low})"


def _by_type(value: str, of_floats: str, otherwise: str) -> exp.Expr:
    """The types of columns are not known here. Spark knows them, and drops the branch that does not apply."""
    return _parsed(f"CASE WHEN typeof({value}) IN ('double', 'float') THEN {of_floats} ELSE {otherwise} END")


def _is_nan(node: exp.IsNan) -> exp.Expr:
    """Null for null. To Spark null is not NaN."""
    value = _text(node.this)
    return _parsed(f"CASE WHEN {value} IS NOT NULL THEN isnan({value}) END")


def _unnested(node: exp.Explode) -> exp.Expr:
    """`unnest(range(a, b))`. Spark's sequence has its end in it, and counts down where the end is less."""
    numbers = node.this
    limits = [numbers.args.get(name) for name in ("start", "end", "step")]
    if not isinstance(numbers, exp.GenerateSeries) or not numbers.args.get("is_end_exclusive") or None in limits[:2]:
        raise _unknown("unnest() of something else than range(a, b)")
    if limits[2] is not None and limits[2].name != "1":
        raise _unknown("unnest(range(a, b, step))")
    start, end = (_text(limit) for limit in limits[:2] if limit is not None)
    return _parsed(f"explode(CASE WHEN {start} < {end} THEN sequence({start}, {end} - 1) END)")


def _numbers(node: exp.GenerateSeries) -> exp.Expr:
    """The table function `range`, whose column has the function's name."""
    table = node.parent
    if isinstance(table, exp.Explode):
        return node
    if not isinstance(table, exp.Table) or not node.args.get("is_end_exclusive"):
        raise _unknown("generate_series, or range in a list")
    alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier("_range"))
    if not alias.args.get("columns"):
        alias.set("columns", [exp.to_identifier("range")])
    table.set("alias", alias)
    limits = [each for name in ("start", "end", "step") if (each := node.args.get(name)) is not None]
    return exp.Anonymous(this="RANGE", expressions=[each.copy() for each in limits])


def _text(node: exp.Expr) -> str:
    return f"({node.sql('spark', identify=True)})"


def _parsed(sql: str) -> exp.Expr:
    return sqlglot.parse_one(sql, read="spark")


_REWRITES: Mapping[type[exp.Expr], Callable[[Any], exp.Expr]] = {
    exp.Anonymous: _named,
    exp.Avg: _average,
    exp.Cast: _cast,
    exp.Div: _divided,
    exp.Explode: _unnested,
    exp.Extract: _extract,
    exp.Filter: _filtered,
    exp.GenerateSeries: _numbers,
    exp.ILike: _like,
    exp.IntDiv: _whole_divided,
    exp.IsNan: _is_nan,
    exp.Like: _like,
    exp.Mod: _whole_divided,
    exp.Round: _rounded,
}
