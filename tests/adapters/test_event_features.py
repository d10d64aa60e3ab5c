"""Columns of the event that are features as they are."""

import numpy as np
import pytest

from training.adapters.features.feature_plan import FeaturePlan
from training.contract.errors import DataContractError
from training.contract.feature_definitions import FeatureDefinitions, RequestViewDefinition
from training.contract.model_spec import ModelSpec

COLUMNS = {
    "pieces": {"type": "int64"},
    "weight": {"type": "float64", "nullable": True},
    "is_gift": {"type": "bool", "nullable": True},
    "is_new": {"type": "bool"},
}
NAMES = tuple(COLUMNS)


@pytest.fixture
def wide(spec: ModelSpec) -> ModelSpec:
    """The reference spec with more event columns."""
    fields = spec.model_dump()
    fields["source"]["feeds"]["events"]["columns"] |= COLUMNS
    return ModelSpec.model_validate(fields)


def event(**changes: object) -> dict[str, object]:
    known = {"event_time": "2026-01-05T12:00:00Z", "pieces": 3, "weight": 1.5, "is_gift": True, "is_new": False}
    return known | changes


def test_they_need_no_code_and_no_table(wide: ModelSpec) -> None:
    definitions = FeatureDefinitions(views=(), request_views=(), event_features=NAMES)
    plan = FeaturePlan(definitions, {}, wide, ["weight", "is_gift", "pieces", "is_new"])
    assert plan.views == ()
    made = plan.assemble([event(), event(weight=None, is_gift=None, pieces=-1)], [])
    np.testing.assert_array_equal(made.values, [[1.5, 1, 3, 0], [np.nan, np.nan, -1, 0]])
    assert made.values.dtype == np.float32
    assert None not in made.timestamps


def test_only_the_needed_ones_are_read(wide: ModelSpec) -> None:
    definitions = FeatureDefinitions(views=(), request_views=(), event_features=NAMES)
    plan = FeaturePlan(definitions, {}, wide, ["pieces"])
    assert plan.definitions.event_features == ("pieces",)
    assert plan.assemble([{"event_time": "2026-01-05T12:00:00Z", "pieces": 4}], []).values.tolist() == [[4]]


def test_a_spec_without_the_column_is_refused(spec: ModelSpec) -> None:
    definitions = FeatureDefinitions(views=(), request_views=(), event_features=("pieces",))
    with pytest.raises(DataContractError, match="need the event columns pieces"):
        FeaturePlan(definitions, {}, spec, ["pieces"])


def test_a_text_becomes_the_code_of_its_category(wide: ModelSpec) -> None:
    fields = wide.model_dump()
    fields["source"]["feeds"]["events"]["columns"]["carrier"] = {"type": "string", "nullable": True}
    texts = ModelSpec.model_validate(fields)
    definitions = FeatureDefinitions(
        views=(), request_views=(), event_features=("carrier", "pieces"), categories={"carrier": ("UA", "AA")}
    )
    plan = FeaturePlan(definitions, {}, texts, ["pieces", "carrier"])
    events = [event(carrier=carrier) for carrier in ("AA", "UA", "ZZ", None)]
    made = plan.assemble(events, []).values
    np.testing.assert_array_equal(made, [[3, 1], [3, 0], [3, 2], [3, np.nan]])
    columns = definitions.columns(plan.names)
    assert [column.categories for column in columns] == [None, ("UA", "AA")]
    assert all(column.may_be_missing for column in columns)


def test_a_request_feature_without_a_default_stays_missing(wide: ModelSpec) -> None:
    view = RequestViewDefinition(
        name="request_features",
        features=("half", "double"),
        event_columns=("weight",),
        source_features=(),
        may_be_missing=("half",),
    )
    definitions = FeatureDefinitions(views=(), request_views=(view,))
    functions = {"request_features": lambda given: {"half": given["weight"] / 2, "double": given["weight"] * 2}}
    plan = FeaturePlan(definitions, functions, wide, ["half", "double"])
    made = plan.assemble([event(), event(weight=None)], []).values
    np.testing.assert_array_equal(made, [[0.75, 3], [np.nan, 0]])
    assert [column.may_be_missing for column in definitions.columns(plan.names)] == [True, False]
