"""The private parts of libraries that training/compat uses. An upgrade that moves one fails here."""

import inspect
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = "import sys\n{code}\nprint(*(name for name in ('torch', 'feast', 'pandas') if name in sys.modules))"


def loaded_after(code: str) -> set[str]:
    """Which of torch, feast and pandas a fresh process has loaded after `code`."""
    program = PROGRAM.format(code=code)
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


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

    [stored] = feast.stored_keys(config, "customer_id", [7], ValueType.INT64)
    [value] = feast.to_values([7], ValueType.INT64)
    key = feast.RedisRows(config).key(feast.entity_key("customer_id", value))
    assert key == stored + b"shop"
    assert key.startswith(feast.stored_key_prefix("customer_id"))


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
