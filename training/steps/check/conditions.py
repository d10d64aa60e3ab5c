"""Run each condition of declared aggregations on its own: a mistake then names its field instead of generated SQL."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from training.contract.feature_tables import FeatureTable
from training.contract.feeds import EVENTS
from training.contract.problems import Problem
from training.contract.registries import FEATURE_ENGINES
from training.contract.source_spec import SourceSpec
from training.domain.feature_engine import SqlError


def check_conditions(spec: SourceSpec, file: str, feeds: Mapping[str, pa.Table]) -> dict[str, list[Problem]]:
    """Table → the mistakes in its conditions, which run here on `feeds` (feed → sample rows)."""
    return {
        name: [
            Problem(
                file=file,
                place=f"features.tables.{name}.aggregations.{aggregation}.condition",
                what=what,
                fix="Write an SQL expression of the row that is true or false, such as `amount > 100`.",
            )
            for aggregation, each in table.aggregations.items()
            if each.condition and (what := _mistake(each.condition, _rows(spec, table, feeds)))
        ]
        for name, table in spec.features.tables.items()
    }


def _rows(spec: SourceSpec, table: FeatureTable, feeds: Mapping[str, pa.Table]) -> pa.Table:
    """The events, with a column of the table's label: its sample values in any order."""
    events = feeds[EVENTS]
    if table.label is None or table.label in events.column_names:
        return events
    values = feeds[spec.labels[table.label].feed][table.label]
    return events.append_column(table.label, values.take(pa.array(np.arange(len(events)) % max(len(values), 1))))


def _mistake(condition: str, rows: pa.Table) -> str | None:
    engine, query = FEATURE_ENGINES.find("duckdb")(), f"SELECT ({condition}) FROM events"
    columns = {name.lower() for name in rows.column_names}
    try:
        kind = engine.execute(query, {}, {"events": rows}).schema.types[0]
        if clock := [each for each in engine.clock_functions(query) if each not in columns]:
            return f"is `{condition}`, which depends on the current time: it uses {', '.join(clock)}"
    except SqlError as error:
        said = str(error).split("\n\nLINE ")[0]
        return f"is `{condition}`, which does not run: {' '.join(said.split())}"
    return None if pt.is_boolean(kind) else f"is `{condition}`, which is a {kind} instead of true or false"
