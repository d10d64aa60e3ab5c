"""Each type of a column on its whole way: landed file, lake, dataset, training, ONNX, request, answer, prediction log.

One model learns from columns of all types, with keys that are whole numbers of 64 bits and texts. Each type is looked
at by itself.
"""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from local.landing import land_table
from serving.schema import RequestSchema
from testing.pipeline import Pipeline
from testing.redis_server import running_redis
from testing.spec_files import own_spec_files, raw_specs
from tests.cases import others_in_ci, others_long
from tests.serving.prediction_rows import make_log, row, together
from training.adapters.datasets import Dataset
from training.adapters.features import Features, OnlineRows, request_code
from training.adapters.features.feature_plan import FeaturePlan
from training.adapters.features.online_stores import online_store
from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.logged_predictions import Predictions
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import CHAMPION, Registry
from training.contract.base import Days
from training.contract.column_types import as_float32
from training.contract.errors import ConfigError
from training.contract.messages import Candidate, DatasetResult, TrainResult
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.source_spec import load_source_spec
from training.domain.arrow_types import arrow_type
from training.settings import Settings

SOURCE, MODEL = "goods", "sales"
START, DAYS, PER_DAY = datetime(2026, 1, 5, tzinfo=UTC), 6, 120
LARGEST = 3.4028234663852886e38
#: Type → some of its values, with the extreme ones that a float32 can be near.
VALUES: dict[str, list[Any]] = {
    **{f"int{n}": [-(2 ** (n - 1)), 2 ** (n - 1) - 1, 0, 7] for n in (8, 16, 32, 64)},
    **{f"uint{n}": [0, 2 ** min(n, 63) - 1, 3] for n in (8, 16, 32, 64)},
    "float32": [LARGEST, -LARGEST, 1.401298464324817e-45, 0.0, as_float32(0.1)],
    "float64": [1e38, -1e-38, 0.1, 2.0**53],
    "decimal(5, 2)": [Decimal("999.99"), Decimal("-999.99"), Decimal("0.10")],
    "decimal(38, 10)": [Decimal("9" * 28 + "." + "9" * 10), Decimal("-0.0000000001"), Decimal(0)],
    "bool": [True, False],
    "string": ["", 'é\n"', "a", "A"],
    "category": ["AA", "é", "BB"],
    "date": [date(1, 1, 1), date(9999, 12, 31), date(2024, 2, 29)],
    "timestamp": [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), START],
    "list(float32)": [[], [1.5, -0.5], [as_float32(0.1)]],
    "list(float64)": [[], [1e30, 5e-324], [0.1] * 30],
    "list(float32, 2)": [[1.5, 2.5], [0.0, -1.0]],
}
#: Types of which a request view makes numbers. The others are features as they are.
MADE = [name for name in VALUES if name.startswith(("date", "timestamp", "list"))]
PLAIN = [name for name in VALUES if name not in MADE]


def column(name: str, nullable: bool = False) -> str:
    """The event column of a type."""
    kept = "".join(each if each.isalnum() else "_" for each in name).strip("_")
    return f"{'n' if nullable else 'x'}_{kept}"


COLUMNS = {column(name, nullable): (name, nullable) for name in VALUES for nullable in (False, True)}
DEFINITIONS = f'''
import numpy as np
import pandas as pd
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Float64, UnixTimestamp

LISTS = {[column(name, nullable) for name in MADE for nullable in (False, True) if name.startswith("list")]}
TIMES = {[column(name, nullable) for name in MADE for nullable in (False, True) if not name.startswith("list")]}

source = RequestSource(
    name="event",
    schema=[*(Field(name=name, dtype=Array(Float64)) for name in LISTS),
            *(Field(name=name, dtype=UnixTimestamp) for name in TIMES)],
)


@on_demand_feature_view(
    sources=[source],
    schema=[Field(name=f"made_{{name}}", dtype=Float32, tags={{"default": "null"}}) for name in [*LISTS, *TIMES]],
)
def made(inputs: pd.DataFrame) -> pd.DataFrame:
    """Days since 1970 of a time, the sum of a list and a hundred for each element. Null stays missing."""
    found = {{}}
    for name in LISTS:
        found[f"made_{{name}}"] = np.array(
            [np.nan if each is None else np.sum(each) + 100 * len(each) for each in inputs[name]], np.float32
        )
    for name in TIMES:
        times = np.asarray(inputs[name]).astype("datetime64[D]")
        found[f"made_{{name}}"] = np.where(np.isnat(times), np.nan, times.astype(np.int64)).astype(np.float32)
    return type(inputs)(found)
'''


def made_number(value: Any) -> float:
    """As the request view of DEFINITIONS."""
    if isinstance(value, list):
        return sum(value) + 100 * len(value)
    day = value.date() if isinstance(value, datetime) else value
    return float((day - date(1970, 1, 1)).days)


def source_spec() -> dict[str, Any]:
    columns: dict[str, Any] = {
        "item": {"type": "uint64", "unique": True},
        "seen_at": {"type": "timestamp"},
        "maker": {"type": "string"},
        "shelf": {"type": "uint64"},
        "sold": {"type": "int8", "values": [0, 1]},
    }
    columns |= {name: {"type": kind, "nullable": nullable} for name, (kind, nullable) in COLUMNS.items()}
    rows = {"minimum_ratio": 0, "maximum_ratio": 99}
    tables = {
        f"{entity}_days": {
            "entity": entity,
            "ttl_days": 7,
            "windows": ["3d"],
            "aggregations": {f"{entity}_count": {"function": "count"}},
        }
        for entity in ("maker", "shelf")
    }
    feed = {"time_column": "seen_at", "id_column": "item", "row_count": rows, "columns": columns}
    plain = [column(name, nullable) for name in PLAIN for nullable in (False, True)]
    return {
        "name": SOURCE,
        "title": "Goods",
        "owner": "someone",
        "feeds": {"events": feed},
        "labels": {"sold": {"feed": "events"}},
        "features": {"event_columns": plain, "tables": tables},
    }


def model_spec() -> dict[str, Any]:
    model, _ = raw_specs()
    training = {"window_days": 3, "holdout_days": 1, "minimum_rows": 20, "minimum_class_rows": 5}
    model |= {"name": MODEL, "source": SOURCE, "label": "sold", "features": "all"}
    model["training"] |= training | {"estimators": {"hist_gradient_boosting": {"max_iter": 5}}}
    model["evaluation"] |= {"entity": "maker", "exclude_known_entities": False}
    model["rollout"]["sticky_by"] = "maker"
    model["monitoring"] = {"window_days": 2, "minimum_rows": 100, "embeddings": [column("list(float32, 2)", True)]}
    return model


def day_of(number: int, schema: pa.Schema) -> pa.Table:
    """The events of one day: value number i of every type in the events i, i + 1 … of a turn; sometimes null."""
    random = np.random.default_rng(number)
    rows = []
    for i in range(PER_DAY):
        event: dict[str, Any] = {
            # Beyond 2⁵³, where a float would take neighbours for one.
            "item": 2**63 - 1 - number * PER_DAY - i,
            "seen_at": START + timedelta(days=number, minutes=10 * i),
            "maker": str(UUID(int=min(i % 9, 4))),
            "shelf": 2**63 - 1 - min(i % 7, 2),
            "sold": int(random.random() < 0.3),
        }
        for name, (kind, nullable) in COLUMNS.items():
            known = VALUES[kind]
            event[name] = None if nullable and random.random() < 0.2 else known[random.integers(len(known))]
        rows.append(event)
    return pa.Table.from_pylist(rows, schema)


@dataclass
class World:
    settings: Settings
    spec: ModelSpec
    lake: Lake
    #: All events as they landed.
    events: list[dict[str, Any]]
    dataset: DatasetResult
    trained: TrainResult

    @property
    def model(self) -> OnnxModel:
        return OnnxModel.load(Path(self.trained.artifact_uri))

    @property
    def holdout(self) -> list[dict[str, Any]]:
        """The holdout's events, in the order of the dataset."""
        days = self.dataset.holdout.days
        found = [each for each in self.events if days.start <= each["seen_at"].date() < days.end]
        return sorted(found, key=lambda each: each["seen_at"])

    def features(self) -> np.ndarray:
        """The holdout's matrix."""
        return Dataset(self.dataset.uri, self.spec).holdout().features(self.model.metadata.columns)

    def place(self, feature: str) -> int:
        return self.model.metadata.feature_names.index(feature)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> World:
    folder = tmp_path_factory.mktemp("types")
    shutil.copy(mlflow_database, folder)
    specs = own_spec_files(folder, [model_spec()], source_spec())
    (specs["feature_repo"] / f"{SOURCE}.py").write_text(DEFINITIONS)
    settings = Settings(home=folder / "home", tracking_uri=f"sqlite:///{folder}/mlflow.db", **specs)
    source = load_source_spec(SOURCE, settings.feature_repo)
    schema = pa.schema([(name, arrow_type(each)) for name, each in source.events.columns.items()])
    days = [day_of(number, schema) for number in range(DAYS)]
    pipeline = Pipeline(settings)
    files = [
        land_table(rows, Path(settings.landing), SOURCE, "events", Days.ending(START.date() + timedelta(days=n + 1), 1))
        for n, rows in enumerate(days)
    ]
    pipeline.ingest(SOURCE, files)
    as_of = START.date() + timedelta(days=DAYS)
    dataset = pipeline.step("dataset", model=MODEL, as_of=as_of, seed=1)
    given = {"model": MODEL, "dataset_uri": dataset.uri, "seed": 1, "reason": "test"}
    trained = pipeline.step("train", **given, estimator="hist_gradient_boosting")
    spec = load_model_spec(MODEL, settings.models_dir, settings.feature_repo)
    events = [event for rows in days for event in rows.to_pylist()]
    return World(settings, spec, Lake(settings.lake, SOURCE, MODEL), events, dataset, trained)


def expected(world: World, name: str, kind: str, events: list[dict[str, Any]]) -> np.ndarray:
    """What the model must get for the column `name`: float32 [n], NaN for null, a category's code."""
    values = [event[name] for event in events]
    if kind in MADE:
        return np.array([np.nan if each is None else made_number(each) for each in values], np.float32)
    if kind in ("string", "category"):
        [known] = [each.categories for each in world.model.metadata.columns if each.name == name]
        assert set(known) == set(VALUES[kind])
        return np.array([np.nan if each is None else known.index(each) for each in values], np.float32)
    return np.array([np.nan if each is None else float(each) for each in values], np.float32)


@pytest.mark.parametrize("nullable", others_long([True, False]))
@pytest.mark.parametrize("kind", others_in_ci(VALUES, every=3))
def test_a_type_reaches_the_model_and_the_log_unchanged(
    world: World, tmp_path: Path, kind: str, nullable: bool
) -> None:
    name = column(kind, nullable)
    feature = f"made_{name}" if kind in MADE else name
    place, model, holdout = world.place(feature), world.model, world.holdout
    want = expected(world, name, kind, holdout)
    assert np.isnan(want).any() == nullable
    assert len(np.unique(want[~np.isnan(want)])) > 1

    learned = world.features()
    np.testing.assert_array_equal(learned[:, place], want)

    # The same events as requests: from JSON to the vector, to the score of the ONNX graph.
    schema = RequestSchema(world.spec)
    asked = schema.many(json.dumps({"events": [json_event(event) for event in holdout]}).encode())
    assert [event[name] for event in asked] == [event[name] for event in holdout]
    definitions = model.metadata.features
    assert definitions is not None
    functions = request_code(world.settings.feature_repo, world.spec.source).functions
    plan = FeaturePlan(definitions, functions, world.spec, model.metadata.feature_names)
    batch = pq.read_table(f"{world.dataset.uri}/requests.parquet")["batch"].to_pylist()
    served = plan.replay(asked, batch).values
    np.testing.assert_array_equal(served, learned)
    np.testing.assert_array_equal(model.score(served), model.score(learned))
    model.check_golden()

    log = make_log(tmp_path, Lake(f"{tmp_path}/lake", SOURCE, MODEL), world.spec)
    vectors = {"feature_names": json.dumps(list(plan.names))}
    log.append(
        together(
            *(
                row(n) | vectors | {"event": e, "feature_values": v}
                for n, (e, v) in enumerate(zip(asked, served, strict=True))
            )
        )
    )
    log.close()
    lake = Lake(f"{tmp_path}/lake", SOURCE, MODEL)
    logged = Predictions(lake, world.spec, lake.version(PREDICTIONS))
    days = Days.ending(world.dataset.holdout.days.end, 1)
    answered = logged.answered(days, ["item", name]).sort_values("item", ascending=False)
    assert [plain(value) for value in answered[name]] == [event[name] for event in holdout]
    rows = sorted(lake.scan(PREDICTIONS).to_table().to_pylist(), key=lambda each: each["event"]["seen_at"])
    np.testing.assert_array_equal(np.array([dict(each["features"])[feature] for each in rows], np.float32), want)


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | list):
        return [float(each) for each in value]
    return None if pd.isna(value) else value


def json_event(event: dict[str, Any]) -> dict[str, Any]:
    """As a caller writes it."""
    written = {name: value for name, value in event.items() if name != "sold"}
    for name, value in written.items():
        if isinstance(value, datetime | date):
            written[name] = value.isoformat()
        elif isinstance(value, Decimal):
            written[name] = str(value)
    return written


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as port:
        yield f"redis://127.0.0.1:{port}/0"


@pytest.mark.parametrize("store", ["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def test_keys_of_64_bits_and_texts_find_their_rows_online(
    world: World, store: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """As Feast reads them and as the service does: neighbours beyond 2⁵³ are not taken for each other."""
    url = request.getfixturevalue("redis_url") if store == "redis" else f"{tmp_path}/online.db"
    settings = Settings(**{**world.settings.model_dump(), "online_store": url})
    versions = world.lake.versions("maker_days", "shelf_days")
    OnlineRows(settings, world.spec.source).materialize(versions)
    features = Features(settings, world.spec)
    now = START + timedelta(days=DAYS, hours=1)
    asked = [
        {**world.events[-1], "seen_at": now, "maker": str(UUID(int=maker)), "shelf": 2**63 - 1 - shelf}
        for maker, shelf in [(0, 0), (3, 1), (4, 2), (5, 3)]
    ]
    names = ["maker_count_3d", "shelf_count_3d"]
    places = [features.names().index(name) for name in names]
    recent = [event for event in world.events if event["seen_at"] >= START + timedelta(days=DAYS - 3)]
    want = [[sum(event[key] == row[key] for event in recent) for key in ("maker", "shelf")] for row in asked]
    assert want[0] != want[1]
    assert want[-1] == [0, 0]
    assert features.online(asked).values[:, places].tolist() == want

    async def found() -> np.ndarray:
        plan, reader = features.plan(names), online_store(settings).reader(60.0)
        try:
            return plan.assemble(asked, await reader.find(asked, plan.views)).values
        finally:
            reader.close()

    assert asyncio.run(found()).tolist() == want


@pytest.mark.parametrize("kind", MADE)
def test_times_and_lists_are_no_features_as_they_are(world: World, tmp_path: Path, kind: str) -> None:
    source = source_spec()
    source["features"]["event_columns"].append(column(kind))
    (tmp_path / f"{SOURCE}.yaml").write_text(yaml.safe_dump(source, sort_keys=False))
    with pytest.raises(ConfigError, match="which cannot be a feature unchanged") as refused:
        load_source_spec(SOURCE, tmp_path)
    assert "an on-demand view" in refused.value.hint


@pytest.mark.long
def test_lists_of_floats_are_monitored_as_a_whole(world: World) -> None:
    """Lists that are other ones in two days of new events; the events before are like those of the training window.

    It lands events, so the other tests of this file come before it.
    """
    pipeline, name = Pipeline(world.settings), column("list(float32, 2)", True)
    candidate = world.trained.model_dump(include=set(Candidate.model_fields))
    given = {"model": MODEL, "dataset_uri": world.dataset.uri, "seed": 1}
    evaluated = pipeline.step("evaluate", **given, candidates=[candidate])
    decided = evaluated.model_dump(include={"challenger", "verdict", "champion_version"})
    registered = pipeline.step("register", model=MODEL, **decided, force=True)
    Registry(world.settings.tracking_uri).set_alias(MODEL, CHAMPION, registered.version)
    unchanged = pipeline.step("drift", model=MODEL, run="r1", as_of=START.date() + timedelta(days=3))
    assert not unchanged.columns[name].drifted

    schema = pa.schema([(each, arrow_type(of)) for each, of in world.spec.source.events.columns.items()])
    for number in (DAYS, DAYS + 1):
        rows = day_of(number, schema)
        place, lists = schema.get_field_index(name), [[7.0, -7.0]] * len(rows)
        changed = rows.set_column(place, schema.field(name), pa.array(lists, schema.field(name).type))
        days = Days.ending(START.date() + timedelta(days=number + 1), 1)
        pipeline.ingest(SOURCE, [land_table(changed, Path(world.settings.landing), SOURCE, "events", days)])
    found = pipeline.step("drift", model=MODEL, run="r2", as_of=START.date() + timedelta(days=DAYS + 2))
    assert found.drifted
    assert found.columns[name].drifted
