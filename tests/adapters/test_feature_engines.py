"""The engines that run feature SQL, through FeatureQueries and by themselves."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from tests.adapters.engines import ENGINES, engine_of
from training.adapters.feature_query import FeatureQueries
from training.contract.errors import ConfigError
from training.domain.feature_engine import SqlError


def test_an_unknown_engine_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "m.sql").write_text("-- table: totals\nSELECT 1\n")
    with pytest.raises(ConfigError, match="no feature engine 'abacus'") as error:
        FeatureQueries(tmp_path / "m.sql", {"totals": "customer_id"}, engine="abacus")
    assert "duckdb" in error.value.hint


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_keeps_the_protocol(name: str, request: pytest.FixtureRequest) -> None:
    engine = engine_of(name, request)
    events = pa.table({"customer_id": [1, 1, 2], "now": [3, 4, 5], "note": ["now()", "", ""]})
    sql = "SELECT customer_id, sum(now) AS n FROM events GROUP BY customer_id HAVING $start < $end ORDER BY customer_id"
    assert engine.parameters(sql) == {"start", "end"}
    days = {"start": date(2026, 1, 1), "end": date(2026, 1, 2)}
    assert engine.execute(sql, days, {"events": events}).column("n").to_pylist() == [7, 5]
    assert engine.clock_functions(sql) == []
    assert engine.clock_functions("SELECT 'now()' AS now, note FROM events -- now()") == []
    assert engine.clock_functions("SELECT NOW() FROM events WHERE d < (SELECT Current_Date)") == [
        "current_date",
        "now()",
    ]
    assert engine.clock_functions("SELECT age(t), age(t, u) FROM events") == ["age() with one argument"]
    for wrong in (engine.parameters, engine.clock_functions):
        with pytest.raises(SqlError):
            wrong("SELEKT 1")
    with pytest.raises(SqlError):
        engine.execute("SELECT nothing FROM events", {}, {"events": events})
