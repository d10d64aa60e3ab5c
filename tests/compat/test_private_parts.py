"""The private parts of libraries that training/compat and testing/compat use. An upgrade that moves one fails here.

Those of Evidently and of Great Expectations, which take seconds to import, are in tests/adapters, with the other tests
that import them.
"""

import contextlib
import inspect
import shutil
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

PROGRAM = "import sys\n{code}\nprint(*(name for name in ('torch', 'feast', 'pandas') if name in sys.modules))"


def loaded_after(code: str) -> set[str]:
    """Which of torch, feast and pandas a fresh process has loaded after `code`."""
    program = PROGRAM.format(code=code)
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


@pytest.mark.ci
def test_feast_is_imported_without_torch_and_without_type_checks() -> None:
    code = (
        "from training.compat.feast import quick_import\n"
        "with quick_import(): import feast\n"
        "assert 'check_argument_types' not in feast.Entity.__init__.__code__.co_names"
    )
    assert loaded_after(code) == {"feast", "pandas"}


def test_feast_decorates_its_classes_with_what_is_switched_off() -> None:
    import typeguard

    from training.compat.feast import quick_import
    from training.compat.typeguard import no_type_checks

    with quick_import():
        import feast.entity
    assert "from typeguard import typechecked\n" in inspect.getsource(feast.entity)
    checked = typeguard.typechecked
    with no_type_checks():
        assert typeguard.typechecked(int) is int
    assert typeguard.typechecked is checked


def test_mlflow_looks_up_its_plugins_for_headers_without_feasts(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import request_header
    from mlflow.utils import plugins

    from training.compat.mlflow import leave_out_feast_headers

    module, every = "mlflow.tracking.request_header.registry", plugins.get_entry_points
    asked: list[str] = []

    def found(group: str) -> list[SimpleNamespace]:
        asked.append(group)
        names = ("feast", "login")
        return [
            SimpleNamespace(name=name, load=lambda name=name: type(name, (), {"in_context": bool})) for name in names
        ]

    with monkeypatch.context() as patch:
        # A process of ours has not imported it before it calls the function.
        patch.setattr(request_header, "registry", None, raising=False)
        patch.delitem(sys.modules, module, raising=False)
        patch.setattr(plugins, "get_entry_points", found)
        leave_out_feast_headers()
        registered = [type(each).__name__ for each in sys.modules[module]._request_header_provider_registry]
        assert plugins.get_entry_points is found
        assert asked == ["mlflow.request_header_provider"]
        assert "login" in registered
        assert "feast" not in registered
    assert plugins.get_entry_points is every


@pytest.mark.ci
def test_mlflow_makes_its_first_request_without_feast() -> None:
    code = (
        "from training.compat.mlflow import leave_out_feast_headers\n"
        "leave_out_feast_headers()\n"
        "from mlflow.tracking.request_header.registry import resolve_request_headers\n"
        "resolve_request_headers()"
    )
    assert "feast" not in loaded_after(code)


def test_mlflow_would_import_feast_otherwise() -> None:
    """When this fails, Feast brings no such plugin any more, and training/compat/mlflow.py can go."""
    from importlib.metadata import entry_points

    names = {point.name for point in entry_points(group="mlflow.request_header_provider")}
    assert "feast" in names


def test_mlflow_does_not_ask_for_the_model_before_it_changes_its_aliases_and_tags(
    mlflow_database: Path, tmp_path: Path
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from training.compat.mlflow import skip_prompt_checks

    shutil.copy(mlflow_database, tmp_path)
    client = MlflowClient(uri := f"sqlite:///{tmp_path}/mlflow.db", uri)
    client.create_registered_model("risk")
    client.create_model_version("risk", str(tmp_path / "artifact"))
    asked: list[str] = []
    whole = client.get_registered_model
    client.get_registered_model = lambda name: asked.append(name) or whole(name)
    client.set_registered_model_alias("risk", "champion", "1")
    assert asked == ["risk"]
    skip_prompt_checks(client)
    client.set_registered_model_alias("risk", "previous", "1")
    client.set_model_version_tag("risk", "1", "digest", "0")
    assert asked == ["risk"]
    assert client.get_model_version("risk", "1").aliases == ["champion", "previous"]
    with pytest.raises(MlflowException) as raised:
        client.set_registered_model_alias("none", "champion", "1")
    assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_mlflow_reads_the_settings_of_its_server_from_these_variables(tmp_path: Path) -> None:
    from importlib.util import find_spec

    from mlflow.server import constants

    from testing.compat.mlflow import SERVER_APP, server_environment

    assert server_environment("sqlite:///mlflow.db", tmp_path) == {
        constants.BACKEND_STORE_URI_ENV_VAR: "sqlite:///mlflow.db",
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(tmp_path),
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    assert find_spec(SERVER_APP.partition(":")[0]) is not None


def test_mlflow_finds_its_newest_migration_once_and_databases_share_compiled_statements(
    mlflow_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from alembic.script import ScriptDirectory
    from mlflow import MlflowClient

    def open_copy(name: str) -> None:
        uri = f"sqlite:///{shutil.copy(mlflow_database, tmp_path / name)}"
        MlflowClient(uri, uri).search_experiments()

    open_copy("first.db")
    monkeypatch.delattr(ScriptDirectory, "from_config")
    with caplog.at_level("INFO", "sqlalchemy.engine.Engine"):
        open_copy("second.db")
    compiled = [before.message for before, now in pairwise(caplog.records) if "[generated in" in now.message]
    # Alembic makes the table of this statement anew each time.
    assert compiled == ["SELECT alembic_version.version_num \nFROM alembic_version"]
    assert "[cached since" in caplog.text


def test_mlflow_forgets_where_artifacts_are(mlflow_database: Path, tmp_path: Path) -> None:
    """When the copy gets the second text, MLflow does not mix up databases any more, and the function can go."""
    from mlflow import MlflowClient

    from testing.compat.mlflow import forget_artifact_folders

    first, second = tmp_path / "first.db", tmp_path / "second.db"
    shutil.copy(mlflow_database, first)
    client = MlflowClient(uri := f"sqlite:///{first}", uri)
    run = client.create_run(client.create_experiment("risk", str(tmp_path / "original"))).info.run_id
    client.log_text(run, "text", "first.txt")
    shutil.copy(first, second)
    with contextlib.closing(sqlite3.connect(second)) as connection, connection:
        connection.execute("UPDATE runs SET artifact_uri = ?", (str(tmp_path / "copy"),))
    client = MlflowClient(uri := f"sqlite:///{second}", uri)
    client.log_text(run, "text", "remembered.txt")
    forget_artifact_folders()
    client.log_text(run, "text", "copy.txt")
    written = {path.name: path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.txt")}
    assert written == {"first.txt": "original", "remembered.txt": "original", "copy.txt": "copy"}


@pytest.mark.parametrize("given", [{"b": None, "a": "x"}, {"a": True, "b": "x"}, {"a": 1, "b": "x"}, {"a": "x"}, {}])
def test_great_expectations_gives_the_arguments_of_a_metric_the_same_id_as_before(given: dict[str, object]) -> None:
    from training.adapters import expectations as quick  # It has called `quick_configurations`.

    ids = quick.gx.core.id_dict.IDDict
    assert ids(given).to_id() == ids.to_id.__wrapped__(ids(given)) == ids(dict(reversed(given.items()))).to_id()


def test_skl2onnx_adds_every_tree_node_through_the_function_that_is_replaced() -> None:
    from skl2onnx import to_onnx
    from skl2onnx.common import tree_ensemble
    from sklearn.ensemble import RandomForestClassifier

    from training.compat.skl2onnx import corrected_tree_nodes

    random = np.random.default_rng(0)
    features = random.random((200, 3)).astype(np.float32)
    forest = RandomForestClassifier(3, max_depth=3, random_state=0).fit(features, features[:, 0] > 0.5)
    original, rounded = tree_ensemble.add_node, list[float]()

    def record(threshold: float) -> float:
        rounded.append(threshold)
        return threshold

    with corrected_tree_nodes(record):
        to_onnx(forest, features[:1], target_opset={"": 17, "ai.onnx.ml": 3})
    assert len(rounded) == sum((tree.tree_.children_left >= 0).sum() for tree in forest.estimators_)
    assert tree_ensemble.add_node is original
    assert "nodes_missing_value_tracks_true" in inspect.signature(original).parameters


@pytest.fixture(scope="module")
def config():
    from training.compat.feast import quick_import

    with quick_import():
        from feast.repo_config import RepoConfig
    return RepoConfig(
        project="shop",
        provider="local",
        registry="none.db",
        online_store={"type": "redis", "connection_string": "nowhere:6379"},
        entity_key_serialization_version=3,
    )


@pytest.fixture(scope="module")
def view(config):
    from feast import Entity, FeatureView, Field, FileSource, ValueType
    from feast.types import Float32

    return FeatureView(
        name="totals",
        entities=[Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.INT64)],
        schema=[Field(name="amount", dtype=Float32)],
        source=FileSource(name="totals", path="none", timestamp_field="time"),
    )


def test_feasts_keys_in_both_stores(config) -> None:
    from feast import ValueType

    from training.compat import feast

    [value] = feast.to_values([7], ValueType.INT64)
    key = feast.RedisRows(config).key(feast.entity_key("customer_id", value))
    assert key.startswith(feast.stored_key_prefix("customer_id"))
    assert key.endswith(b"shop")


EXAMPLES = {
    "Float32": [0.0, -0.0, 1.5, -1e-7, 3e38, None, float("nan"), 16777217.0],
    "Float64": [0.0, -0.0, 1.5, -1e-7, 3e300, None, float("nan"), 0.1],
    "Int64": [0, -1, 2**62, None, 7, 7, 7, 1],
    "Int32": [0, -1, 2**30, None, 7, 7, 7, 1],
    "Bool": [True, False, None, True, True, False, False, None],
    "String": ["", "é", None, "a" * 300, "東京", "x", "x", " "],
}
ENTITIES = {"INT64": [0, -1, 2**62, 7, 8, 9, 10, -(2**63)], "STRING": ["", "é", "a" * 300, "東京", "x", "y", "z", " "]}


@pytest.mark.parametrize("kind", ENTITIES)
@pytest.mark.parametrize("store", ["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def test_rows_are_written_byte_for_byte_as_feast_writes_them(store: str, kind: str, tmp_path: Path) -> None:
    """Both stores hold the same after Feast's own write and after ours, values of every kind and nulls among them."""
    with contextlib.ExitStack() as stack:
        if store == "redis":
            from testing.redis_server import running_redis

            port = stack.enter_context(running_redis(tmp_path))
            urls = [f"redis://127.0.0.1:{port}/{n}" for n in (1, 2)]
        else:
            urls = [str(tmp_path / name) for name in ("a.db", "b.db")]
        first, second = (written(url, kind, tmp_path, ours) for url, ours in zip(urls, (False, True), strict=True))
        assert first == second
        assert len(first) >= len(ENTITIES[kind])


def written(url: str, kind: str, folder: Path, ours: bool) -> list:
    """All that is in the store at `url` after a write of EXAMPLES for these entities."""
    import feast
    import pandas as pd
    import pyarrow as pa

    from training.adapters.features.feast_config import repo_config
    from training.adapters.features.online_stores import online_store
    from training.compat.feast import stored_rows
    from training.settings import Settings

    settings = Settings(home=folder, online_store=url)
    online = online_store(settings)
    customer = feast.Entity(name="customer", value_type=feast.ValueType[kind])
    view = feast.FeatureView(
        name="totals",
        entities=[customer],
        schema=[feast.Field(name=name.lower(), dtype=getattr(feast.types, name)) for name in EXAMPLES],
        source=feast.FileSource(name="totals", path="none", timestamp_field="time"),
        ttl=timedelta(days=1),
    )
    config = repo_config(settings, str(folder / f"{ours}.registry"), online.feast_settings())
    store = feast.FeatureStore(config=config)
    store.apply([customer, view])
    kinds = [pa.float32(), pa.float64(), pa.int64(), pa.int32(), pa.bool_(), pa.string()]
    entities = pa.array(ENTITIES[kind], pa.int64() if kind == "INT64" else pa.string())
    times = pa.array([datetime(2026, 1, 5, 0, 0, i, i, UTC) for i in range(8)], pa.timestamp("us", "UTC"))
    columns = [pa.array(values, type) for values, type in zip(EXAMPLES.values(), kinds, strict=True)]
    rows = pa.table([entities, times, *columns], ["customer", "time", *map(str.lower, EXAMPLES)])
    if ours:
        online.write(config, view, stored_rows(config, view, rows, "time"))
    else:
        frame = rows.to_pandas().astype({"int64": "Int64", "int32": "Int32"})
        store.write_to_online_store("totals", pd.DataFrame(frame))
    if url.startswith("redis"):
        from redis import Redis

        with Redis.from_url(url) as client:
            return sorted((key, sorted(client.hgetall(key).items())) for key in client.scan_iter())
    with contextlib.closing(sqlite3.connect(url)) as connection:
        return sorted(connection.execute("SELECT * FROM perennial_totals"), key=repr)


@pytest.mark.redis
def test_an_error_among_packed_commands_is_raised_and_the_client_can_go_on(tmp_path: Path) -> None:
    from redis import Redis
    from redis.exceptions import ResponseError

    from testing.redis_server import running_redis
    from training.compat.feast import send_packed

    wrong, right = (b"*4\r\n$4\r\nHSET\r\n$1\r\n%b\r\n$1\r\nf\r\n$1\r\nv\r\n" % key for key in (b"a", b"b"))
    with running_redis(tmp_path) as port, Redis(port=port) as client:
        client.set("a", "a text, not a hash")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            send_packed(client, [wrong, right])
        assert client.get("a") == b"a text, not a hash"
        send_packed(client, [right, right])
        assert client.hget("b", "f") == b"v"


def test_feasts_fields_in_redis_end_with_the_time(config, view) -> None:
    from training.compat import feast

    fields = feast.RedisRows(config).fields(view, ["amount"])
    assert len(fields) == 2
    assert fields[-1] == feast.time_field("totals")


def test_feasts_client_and_its_table_in_sqlite(config, view) -> None:
    from redis import Redis

    from training.compat import feast

    assert isinstance(feast.RedisRows(config).client(), Redis)
    assert feast.sqlite_table("shop", view) == "shop_totals"


def test_feast_takes_tags_and_descriptions_of_an_on_demand_view() -> None:
    """Without `registrable` it refuses them. When it accepts them by itself, the function can go."""
    import pandas as pd
    from feast import FeatureService, Field, RequestSource
    from feast.errors import SpecifiedFeaturesNotPresentError
    from feast.on_demand_feature_view import OnDemandFeatureView, on_demand_feature_view
    from feast.types import Float32, Float64

    from training.compat.feast import registrable

    @on_demand_feature_view(
        sources=[RequestSource(name="event", schema=[Field(name="amount", dtype=Float64)])],
        schema=[Field(name="half", dtype=Float32, description="Half of it", tags={"default": "null"})],
    )
    def halves(inputs: pd.DataFrame) -> pd.DataFrame:
        return type(inputs)({"half": (inputs["amount"] / 2).astype("float32")})

    with pytest.raises(SpecifiedFeaturesNotPresentError):
        halves.infer_features()
    [copied, service] = registrable([halves, FeatureService(name="all_of_it", features=[halves])])
    copied.infer_features()
    again = OnDemandFeatureView.from_proto(copied.to_proto())
    assert again.with_projection(service.feature_view_projections[0]).projection.features == again.features
    assert halves.features[0].tags == {"default": "null"}
