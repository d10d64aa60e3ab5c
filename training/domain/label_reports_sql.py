"""The reports of labels that feature SQL reads, as SQL: what `one_per_report` and `implied_reports` of labels.py make.

Engines in another process run it, so that the reports need not pass through the step.
"""

from collections.abc import Sequence
from datetime import date

import pyarrow as pa
import pyarrow.types as pt

from training.contract.feeds import PARTITION
from training.contract.source_spec import LabelColumn
from training.domain.sql_names import quoted


def reports_sql(
    reports: str,
    schema: pa.Schema,
    labels: Sequence[LabelColumn],
    events: str | None = None,
    event_time: str = "",
    until: date = date.max,
) -> str:
    """The SELECT of the last report of each event and time from the relation `reports`, which has `schema`.

    `labels`: those of the feed. `events`: the relation of the events whose silence is a report, when their delay ended
    before `until`; None: of none.
    """
    identity, at = quoted(labels[0].id_column), quoted(labels[0].time_column)
    columns = ", ".join(quoted(name) for name in schema.names)
    order = [at, *_ascending(PARTITION, schema), *(term for each in labels for term in _ascending(each.column, schema))]
    labelled = " OR ".join(f"{quoted(each.column)} IS NOT NULL" for each in labels)
    # Reports from before the spec named its columns as it does now say nothing about the event's label.
    says = "" if any(each.nullable for each in labels) else f" AND ({labelled})"
    relations = [
        f"_said AS (SELECT *, lead({at}) OVER (PARTITION BY {identity} ORDER BY {', '.join(order)}) AS _next "
        f"FROM {quoted(reports)} WHERE {identity} IS NOT NULL{says})",
        f"_last AS (SELECT {columns} FROM _said WHERE _next IS NULL OR _next > {at})",
    ]
    select = f"SELECT {columns} FROM _last"
    if events is not None:
        matured = f"{quoted(event_time)} + INTERVAL {labels[0].delay_days} DAY"
        relations += [
            f"_first AS (SELECT {identity} AS _reported, min({at}) AS _first_at FROM _last GROUP BY {identity})",
            f"_due AS (SELECT {identity} AS _event, {matured} AS _matured FROM {quoted(events)})",
        ]
        silent = "_first_at IS NULL OR _first_at > _matured"
        until_then = f"_matured < CAST(CAST('{until.isoformat()}' AS DATE) AS TIMESTAMP)"
        select += f" UNION ALL SELECT {', '.join(_implied(schema, labels))} FROM _due LEFT JOIN _first"
        select += f" ON _event = _reported WHERE {until_then} AND ({silent})"
    return f"WITH {', '.join(relations)} {select}"


def _implied(schema: pa.Schema, labels: Sequence[LabelColumn]) -> list[str]:
    """The columns of a report that stands for silence."""
    made = {each.column: "false" if pt.is_boolean(schema.field(each.column).type) else "0" for each in labels}
    made |= {labels[0].id_column: "_event", labels[0].time_column: "_matured"}
    return [f"{made.get(name, 'NULL')} AS {quoted(name)}" for name in schema.names]


def _ascending(name: str, schema: pa.Schema) -> list[str]:
    """As Arrow sorts: nulls first, then NaN."""
    column = quoted(name)
    is_nan = [f"isnan({column}) DESC NULLS FIRST"] if pt.is_floating(schema.field(name).type) else []
    return [*is_nan, f"{column} ASC NULLS FIRST"]
