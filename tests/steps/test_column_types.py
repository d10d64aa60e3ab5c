"""Each type of a column keeps every value on its way: file, lake, typed readers, request, prediction log, lake."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from serving.schema import BadRequest, RequestSchema
from tests.cases import others_in_ci, others_long
from tests.serving.prediction_rows import make_log, row, together
from tests.steps.ingest_helpers import MODEL, Deliveries
from training.adapters.lake import EVENTS, PREDICTIONS
from training.adapters.logged_predictions import Predictions
from training.adapters.tables import Events
from training.contract.base import Days
from training.contract.column_types import as_float32
from training.contract.errors import ConfigError
from training.contract.model_spec import ModelSpec, load_model_spec
from training.domain.arrow_types import arrow_type
from training.domain.sample_feeds import sample_feeds
from training.settings import Settings

DAY = date(2026, 1, 5)
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
LARGEST = 3.4028234663852886e38
#: Type → the extreme values that it holds, and usual ones.
VALUES: dict[str, list[Any]] = {
    **{f"int{n}": [-(2 ** (n - 1)), 2 ** (n - 1) - 1, 0] for n in (8, 16, 32, 64)},
    **{f"uint{n}": [0, 2 ** min(n, 63) - 1] for n in (8, 16, 32, 64)},
    "float32": [LARGEST, -LARGEST, 1.401298464324817e-45, -0.0, as_float32(0.1)],
    "float64": [1.7976931348623157e308, 5e-324, -0.0, 0.1],
    "decimal(5, 2)": [Decimal("999.99"), Decimal("-999.99"), Decimal("0.10")],
    "decimal(38, 10)": [Decimal("9" * 28 + "." + "9" * 10), Decimal("-0.0000000001"), Decimal("0E-10")],
    "bool": [True, False],
    "string": ["", 'é\0\n"', "x" * 1000],
    "category": ["AA", "", "é"],
    "date": [date(1, 1, 1), date(9999, 12, 31), date(2024, 2, 29)],
    "timestamp": [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), NOON],
    "list(float32)": [[], [LARGEST, -0.0], [as_float32(0.1)]],
    "list(float64)": [[], [1.7976931348623157e308, 5e-324], [0.1] * 300],
    "list(float32, 2)": [[1.5, 2.5], [0.0, -1.0]],
}


def spec_with(settings: Settings, column: dict[str, Any]) -> tuple[Deliveries, ModelSpec]:
    deliveries = Deliveries(settings)
    deliveries.respec(lambda feeds: feeds["events"]["columns"].update(x=column))
    return deliveries, respecified(deliveries)


def respecified(deliveries: Deliveries) -> ModelSpec:
    return load_model_spec(MODEL, deliveries.settings.models_dir, deliveries.settings.feature_repo)


def events(values: list[Any], kind: pa.DataType) -> pa.Table:
    """One event per value, with it as the column `x`."""
    count = len(values)
    return pa.table(
        {
            "transaction_id": pa.array(range(count)),
            "event_time": pa.array([NOON + timedelta(seconds=n) for n in range(count)], pa.timestamp("us", "UTC")),
            "customer_id": pa.array([1] * count),
            "terminal_id": pa.array([2] * count),
            "amount": pa.array([2.5] * count),
            "x": pa.array(values, kind),
        }
    )


def plain(value: Any) -> Any:
    """`value` of a frame as Python's. Lists are NumPy's there, and a null has several forms."""
    if isinstance(value, np.ndarray | list):
        return [float(each) for each in value]
    return None if pd.isna(value) else value


def same(found: list[Any], expected: list[Any]) -> bool:
    """Equal in value and in sign: -0.0 is not 0.0."""

    def sign(value: Any) -> Any:
        return str(value) if isinstance(value, float) else value

    def each(value: Any) -> Any:
        return [sign(one) for one in value] if isinstance(value, list) else sign(value)

    return [each(value) for value in found] == [each(value) for value in expected]


@pytest.mark.parametrize("nullable", others_long([True, False]))
@pytest.mark.parametrize("name", others_in_ci(VALUES, every=7))
def test_a_type_keeps_every_value(settings: Settings, tmp_path: Path, name: str, nullable: bool) -> None:
    deliveries, spec = spec_with(settings, {"type": name, "nullable": nullable})
    column, values = spec.request_columns["x"], [*VALUES[name], *([None] if nullable else [])]
    rows = events(values, arrow_type(column))

    result = deliveries.deliver(rows, str(DAY))
    assert result.rows_quarantined == 0
    version, days = result.table_versions[EVENTS], Days.ending(DAY + timedelta(days=1), 1)
    read = Events(deliveries.lake, spec.source, version).within(days).sort_values("transaction_id")
    assert same([plain(value) for value in read["x"]], values)

    schema = RequestSchema(spec)
    requests = [
        {**each, "event_time": each["event_time"].isoformat(), "x": json_form(each["x"])} for each in rows.to_pylist()
    ]
    asked = schema.many(json.dumps(requests).encode())
    assert same([event["x"] for event in asked], values)
    assert [schema.one(json.dumps(each).encode()) for each in requests] == asked

    log = make_log(tmp_path, deliveries.lake, spec)
    log.append(together(*(row(number) | {"event": event} for number, event in enumerate(asked))))
    log.close()
    table = deliveries.lake.scan(PREDICTIONS)
    assert table.schema.field("event").type.field("x").type == arrow_type(column)
    logged = Predictions(deliveries.lake, spec, deliveries.lake.version(PREDICTIONS))
    answered = logged.answered(days, ["transaction_id", "x"]).sort_values("transaction_id")
    assert same([plain(value) for value in answered["x"]], values)


def json_form(value: Any) -> Any:
    """As a caller writes it in JSON."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


RULES = [
    ("int8", {"minimum": -5, "maximum": 5}, [-5, 5, 0], -6, "x is outside -5 … 5"),
    ("uint64", {"maximum": 2**63 - 1, "minimum": 1}, [2**63 - 1, 1, 7], 0, "x is outside 1 … 9.22337e+18"),
    ("int64", {"maximum": 2**53 + 1}, [2**53 + 1, 2**53, -(2**63)], 2**53 + 2, "x is above 9.0072e+15"),
    ("int16", {"values": [1, 300]}, [1, 300, 1], 2, "x is none of 1, 300"),
    ("float32", {"maximum": 0.1}, [as_float32(0.1), 0.0, -1.0], 0.125, "x is above 0.1"),
    ("float32", {"values": [0.1, 2]}, [as_float32(0.1), 2.0, 2.0], 0.125, "x is none of 0.1, 2"),
    (
        "decimal(38, 2)",
        {"minimum": "0.10"},
        [Decimal("0.10"), Decimal(1), Decimal(2)],
        Decimal("0.09"),
        "x is below 0.10",
    ),
    (
        "decimal(38, 2)",
        {"maximum": "9" * 36 + ".98"},
        [Decimal("9" * 36 + ".98"), Decimal(1), Decimal(2)],
        Decimal("9" * 36 + ".99"),
        f"x is above {'9' * 36}.98",
    ),
    (
        "decimal(5, 2)",
        {"values": [0.5, "1.25"]},
        [Decimal("0.50"), Decimal("1.25")] * 2,
        Decimal(1),
        "x is none of 0.5, 1.25",
    ),
    ("category", {"values": ["NO", "SE"]}, ["NO", "SE", "NO"], "DK", "x is none of NO, SE"),
    ("date", {"minimum": "2026-01-05"}, [date(2026, 1, 5), date.max, DAY], date(2026, 1, 4), "x is below 2026-01-05"),
    (
        "timestamp",
        {"minimum": "2026-01-05T13:00:00+01:00", "maximum": "2026-01-06"},
        [NOON, NOON + timedelta(hours=12), NOON],
        NOON - timedelta(microseconds=1),
        "x is outside 2026-01-05T13:00:00+01:00 … 2026-01-06",
    ),
    ("list(float32, 2)", {}, [[0.5, 1.0]] * 3, None, "x is missing"),
]


@pytest.mark.parametrize(("name", "rules", "good", "bad", "reason"), others_in_ci(RULES, every=6))
def test_the_rules_of_each_type(
    settings: Settings, name: str, rules: dict[str, Any], good: list[Any], bad: Any, reason: str
) -> None:
    """In the feed, where a row that breaks a rule goes to quarantine, and in a request."""
    deliveries, spec = spec_with(settings, {"type": name, **rules})
    deliveries.respec(lambda feeds: feeds["events"].update(maximum_quarantined=0.5))
    rows = events([*good, bad], arrow_type(spec.request_columns["x"]))
    result = deliveries.deliver(rows, str(DAY))
    assert (result.rows_kept, result.quarantine_reasons) == (len(good), {reason: 1})

    schema = RequestSchema(spec)
    *accepted, refused = (
        json.dumps({**each, "event_time": each["event_time"].isoformat(), "x": json_form(each["x"])}).encode()
        for each in rows.to_pylist()
    )
    assert same([schema.one(body)["x"] for body in accepted], good)
    with pytest.raises(BadRequest) as found:
        schema.one(refused)
    assert list(found.value.problem.fields) == ["x"]


UNIQUE = {
    "uint64": [2**63 - 1, 2**63 - 2],
    "decimal(38, 10)": [Decimal("9" * 28 + ".0000000001"), Decimal("9" * 28 + ".0000000002")],
    "date": [date(1, 1, 1), date(9999, 12, 31)],
    "timestamp": [NOON, NOON + timedelta(microseconds=1)],
    "string": ["a", "A"],
}


@pytest.mark.parametrize("name", others_in_ci(UNIQUE))
def test_unique_values_of_each_type(settings: Settings, name: str) -> None:
    """Within a partition and across partitions."""
    deliveries, spec = spec_with(settings, {"type": name, "unique": True})
    deliveries.respec(lambda feeds: feeds["events"].update(maximum_quarantined=1))
    kind = arrow_type(spec.request_columns["x"])
    assert deliveries.deliver(events(UNIQUE[name], kind), str(DAY)).rows_kept == 2
    again = events([UNIQUE[name][0]] * 2, kind)
    ids, times = pa.array([10, 11]), pa.array([NOON + timedelta(days=1)] * 2, pa.timestamp("us", "UTC"))
    again = again.set_column(0, "transaction_id", ids).set_column(1, "event_time", times)
    reasons = deliveries.deliver(again, str(DAY + timedelta(days=1))).quarantine_reasons
    assert reasons == {"x is not unique": 2, f"x is in partition {DAY} already": 2}


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"type": "int12"}, "x.type is 'int12', which is not a type. The types are int8, "),
        ({"type": "decimal(39, 2)"}, "x.type is decimal(39, 2), but a decimal has 1 to 38 digits"),
        ({"type": "decimal(4, 5)"}, "x.type is decimal(4, 5), but a decimal has 1 to 38 digits"),
        ({"type": "list(string)"}, "x.type is 'list(string)', which is not a type"),
        ({"type": "uint8", "minimum": -1}, "x.minimum is -1, which is not a uint8"),
        ({"type": "int8", "maximum": 128}, "x.maximum is 128, which is not an int8"),
        ({"type": "decimal(4, 2)", "maximum": "1_0"}, "x.maximum is 1_0, which is not a decimal(4, 2)"),
        ({"type": "decimal(4, 2)", "minimum": 0.001}, "x.minimum is 0.001, which is not a decimal(4, 2)"),
        ({"type": "date", "minimum": "5 January"}, "x.minimum is 5 January, which is not a date"),
        (
            {"type": "date", "values": ["2026-01-05"]},
            "x.values is set, but a column of type date has no",
        ),
        ({"type": "float32", "maximum": 1e39}, "x.maximum is 1e+39, which is not a float32"),
        ({"type": "list(float32)", "minimum": 0}, "x.minimum is set, but a column of type list(float32) has no bounds"),
        ({"type": "list(float32)", "values": [1]}, "x.values is set, but a column of type list(float32) has no list"),
        ({"type": "category", "unique": True}, "x.unique is set, but a column of type category has no unique values"),
        ({"type": "decimal(4, 2)", "minimum": "2.5", "maximum": 1}, "x.minimum is 2.5, above the maximum 1"),
    ],
)
def test_a_spec_that_breaks_the_rules_of_its_types(settings: Settings, column: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        spec_with(settings, column)


def test_the_openapi_document_describes_each_type(settings: Settings) -> None:
    deliveries = Deliveries(settings)
    columns = {f"x{i}": {"type": name} for i, name in enumerate(VALUES)}
    columns |= {"closed": {"type": "decimal(4, 2)", "values": ["0.10"]}}
    columns |= {"half": {"type": "float64", "values": [0.5, 2]}}
    deliveries.respec(lambda feeds: feeds["events"]["columns"].update(columns))
    schema = RequestSchema(respecified(deliveries))
    body = schema.openapi(schema.event)["requestBody"]["content"]["application/json"]["schema"]["properties"]
    found = {name: body[f"x{i}"] for i, name in enumerate(VALUES)}
    assert (found["int8"]["minimum"], found["int8"]["maximum"]) == (-128, 127)
    assert (found["uint64"]["minimum"], found["uint64"]["maximum"]) == (0, 2**63 - 1)
    assert (found["float64"]["type"], found["float32"]["maximum"]) == ("number", LARGEST)
    assert {each["type"] for each in found["decimal(5, 2)"]["anyOf"]} == {"number", "string"}
    assert (found["bool"]["type"], found["category"]["type"]) == ("boolean", "string")
    assert (found["date"]["format"], found["timestamp"]["format"]) == ("date", "date-time")
    assert (found["list(float32)"]["type"], found["list(float64)"]["items"]["type"]) == ("array", "number")
    assert (found["list(float32, 2)"]["minItems"], found["list(float32, 2)"]["maxItems"]) == (2, 2)
    assert body["closed"]["enum"] == ["0.10"]
    assert body["half"]["enum"] == [0.5, 2.0]


@pytest.mark.parametrize(
    ("name", "value", "meaning"),
    [
        ("decimal(5, 2)", 25.1, Decimal("25.1")),
        ("decimal(5, 2)", 25, Decimal(25)),
        ("decimal(5, 2)", "25.10", Decimal("25.10")),
        ("float32", 0.1, as_float32(0.1)),
        ("list(float32)", [0.1], [as_float32(0.1)]),
        ("timestamp", "1850-06-01T00:00:00", datetime(1850, 6, 1, tzinfo=UTC)),
        ("float64", 3, 3.0),
    ],
)
def test_the_json_forms_of_a_value(settings: Settings, name: str, value: Any, meaning: Any) -> None:
    _, spec = spec_with(settings, {"type": name})
    assert RequestSchema(spec).one(body_of(value))["x"] == meaning


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("decimal(38, 20)", 0.12345678901234567),
        ("decimal(5, 2)", "25.101"),
        ("decimal(5, 2)", "NaN"),
        ("decimal(5, 2)", True),
        ("decimal(5, 2)", "1_0"),
        ("decimal(5, 2)", " 10"),
        ("int8", 128),
        ("float32", 1e39),
        ("date", "2026-01-05T12:00:00"),
        ("date", 20460),
        ("date", "2026-02-30"),
        ("timestamp", "0001-01-01T00:00:00+14:00"),
        ("list(float32)", [0.5, None]),
        ("list(float32)", 0.5),
        ("list(float64, 2)", [0.5]),
        ("category", 7),
    ],
)
def test_a_value_of_a_request_that_does_not_fit(settings: Settings, name: str, value: Any) -> None:
    _, spec = spec_with(settings, {"type": name})
    with pytest.raises(BadRequest) as refused:
        RequestSchema(spec).one(body_of(value))
    assert refused.value.status == 422
    assert all(field.startswith("x") for field in refused.value.problem.fields)


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ({"type": "int64", "values": [0, 1]}, [0, 1], [True, False, 1.0, "1"]),
        ({"type": "bool", "values": [True]}, [True], [1, 1.0, "true"]),
        ({"type": "decimal(4, 2)", "values": ["1.00"]}, [1, "1.0"], [True, "1_0"]),
    ],
)
def test_allowed_values_are_of_their_type(
    settings: Settings, column: dict[str, Any], good: list[Any], bad: list[Any]
) -> None:
    schema = RequestSchema(spec_with(settings, column)[1])
    assert [schema.one(body_of(value))["x"] for value in good] == [type_of(column)(value) for value in good]
    for value in bad:
        with pytest.raises(BadRequest):
            schema.one(body_of(value))


def type_of(column: dict[str, Any]) -> Any:
    return {"int64": int, "bool": bool}.get(column["type"], Decimal)


def body_of(value: Any) -> bytes:
    [event] = events([None], pa.null()).to_pylist()
    return json.dumps({**event, "event_time": NOON.isoformat(), "x": value}).encode()


def test_sample_feeds_have_numbers_of_the_widest_and_the_narrowest_types(settings: Settings) -> None:
    deliveries = Deliveries(settings)
    odd = {"wide": {"type": "float64", "minimum": -1.7e308, "maximum": 1.7e308}, "narrow": {"type": "decimal(38, 38)"}}
    deliveries.respec(lambda feeds: feeds["events"]["columns"].update(odd))
    rows = sample_feeds(respecified(deliveries).source, DAY, 3, also=[1, 1000])[EVENTS]
    assert set(rows["narrow"].to_pylist()) == {Decimal(0).scaleb(-38)}
    assert rows["wide"].null_count == 0


def test_sample_feeds_follow_the_rules_of_each_type(settings: Settings) -> None:
    """The check step runs the features on them."""
    deliveries = Deliveries(settings)
    columns: dict[str, Any] = {f"x{i}": {"type": name, "nullable": True} for i, name in enumerate(VALUES)}
    columns |= {f"bound{i}": {"type": name, **rules} for i, (name, rules, *_) in enumerate(RULES)}
    columns |= {f"unique{i}": {"type": name, "unique": True} for i, name in enumerate(UNIQUE)}
    feed = {"columns": columns, "row_count": {"minimum": 0, "minimum_ratio": 0, "maximum_ratio": 99}}

    def put_in(feeds: dict[str, Any]) -> None:
        feeds["events"].update(feed | {"columns": feeds["events"]["columns"] | columns})

    deliveries.respec(put_in)
    rows = sample_feeds(respecified(deliveries).source, DAY, 3)[EVENTS]
    result = deliveries.deliver(rows, f"{DAY}_{DAY + timedelta(days=2)}")
    assert (result.rows_kept, result.quarantine_reasons) == (rows.num_rows, {})


def test_a_column_of_the_lake_widens_to_a_type_that_holds_its_values(settings: Settings) -> None:
    deliveries, _ = spec_with(settings, {"type": "int8"})
    steps = [("int8", -128), ("int64", 2**40), ("float64", 0.5)]
    for number, (name, value) in enumerate(steps):
        deliveries.respec(lambda feeds, name=name: feeds["events"]["columns"].update(x={"type": name}))
        spec = respecified(deliveries)
        row = events([value], arrow_type(spec.request_columns["x"]))
        times = pa.array([NOON + timedelta(days=number)], pa.timestamp("us", "UTC"))
        row = row.set_column(0, "transaction_id", pa.array([number])).set_column(1, "event_time", times)
        deliveries.deliver(row, str(DAY + timedelta(days=number)))
    stored = deliveries.lake.scan(EVENTS).to_table().sort_by("transaction_id")
    assert stored["x"].to_pylist() == [-128.0, 2.0**40, 0.5]
    deliveries.respec(lambda feeds: feeds["events"]["columns"].update(x={"type": "string"}))
    with pytest.raises(ConfigError, match="column x is double in the table and string in the new rows"):
        deliveries.deliver(events(["a"], pa.string()), str(DAY))
