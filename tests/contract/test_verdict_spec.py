"""Mistakes in evaluation.slices, evaluation.calibration and evaluation.fairness: each with its place and what to do."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from training.contract.errors import ConfigError
from training.contract.model_spec import MODELS_DIR, ModelSpec, load_model_spec


def _loaded(folder: Path, model: str, section: str, fields: Any, **changes: Any) -> ModelSpec:
    text = yaml.safe_load((MODELS_DIR / f"{model}.yaml").read_text())
    text["evaluation"][section] = fields
    (folder / f"{model}.yaml").write_text(yaml.safe_dump({**text, **changes}))
    return load_model_spec(model, folder)


@pytest.mark.parametrize(
    ("section", "fields", "place", "said"),
    [
        ("slices", {"columns": {"arrival_delay": {}}}, "slices.columns.arrival_delay", "is a label"),
        ("slices", {"columns": {"outcome": {}}}, "slices.columns.outcome", "is a label"),
        ("slices", {"columns": {"flight_id": {}}}, "slices.columns.flight_id", "is the id of an event"),
        ("slices", {"columns": {"scheduled_departure": {}}}, "slices.columns.scheduled", "is the time of an event"),
        (
            "slices",
            {"columns": {"origin": {"bounds": [1]}}},
            "origin.bounds",
            "is set, but the column is of type string",
        ),
        (
            "slices",
            {"columns": {"origin": {"values": ["LAX"]}}},
            "origin.values",
            "holds LAX, which the column does not",
        ),
        (
            "slices",
            {"columns": {"origin": {"values": [1]}}},
            "origin.values",
            "holds 1, but the column is of type string",
        ),
        (
            "slices",
            {"columns": {"weekday": {"values": ["1"]}}},
            "weekday.values",
            "holds '1', but the column is of type",
        ),
        ("slices", {"columns": {"weekday": {"values": [True]}}}, "weekday.values", "holds True, but the column is of"),
        ("slices", {"columns": {"distance": {"bounds": [0]}}}, "distance.bounds", "no value of the column is on both"),
        ("slices", {"columns": {"distance": {"bounds": [20000]}}}, "distance.bounds", "holds 20000"),
        ("slices", {"columns": {"distance": {"bounds": [5, 5]}}}, "distance.bounds", "bands must not overlap"),
        ("slices", {"columns": {"distance": {"bounds": [9, 5]}}}, "distance.bounds", "each bound must be above"),
        ("slices", {"columns": {"distance": {"bounds": []}}}, "distance.bounds", "at least 1 item"),
        ("slices", {"columns": {"distance": {"bounds": [float("nan")]}}}, "distance.bounds", "finite number"),
        ("slices", {"columns": {"origin": {"values": ["EWR", "EWR"]}}}, "origin.values", "EWR more than once"),
        ("slices", {"columns": {"origin": {"values": ["EWR"], "bounds": [1]}}}, "origin.bounds", "given beside values"),
        (
            "slices",
            {"columns": {"orign": {}}},
            "slices.columns.orign",
            "is neither a column of the events nor a feature",
        ),
        ("slices", {"ages": {"rout": {}}}, "slices.ages.rout", "is not a column of the events"),
        ("slices", {"ages": {"flight_id": {}}}, "slices.ages.flight_id", "is the id: every event has another one"),
        ("slices", {"ages": {"humidity": {}}}, "slices.ages.humidity", "is not an entity"),
        ("slices", {"ages": {"route": {"values": ["a"]}}}, "slices.ages.route.values", "an age is a number of days"),
        ("slices", {"ages": {"route": {"bounds": [0, 7]}}}, "slices.ages.route.bounds", "not above 0"),
        ("slices", {"metric": "roc_auc"}, "slices.metric", "which the task regression does not have"),
        ("slices", {"metric": "interval_coverage", "margin": 1.5}, "slices.margin", "the metric is at most 1"),
        ("calibration", {"maximum_error": 0}, "calibration.maximum_error", "greater than 0"),
        ("calibration", {"bins": 1}, "calibration.bins", "greater than or equal to 2"),
        ("fairness", {"columns": {"arrival_delay": {}}}, "fairness.columns.arrival_delay", "is a label"),
        ("fairness", {"limits": {"mean_error": 1}}, "fairness.limits", "names no groups"),
        ("fairness", {"maximum_change": {"mean_error": 1}}, "fairness.maximum_change", "names no groups"),
        (
            "fairness",
            {"columns": {"origin": {}}, "limits": {"selection_rate": 0.1}},
            "fairness.limits",
            "names selection_rate, which the task regression does not have",
        ),
        (
            "fairness",
            {"columns": {"origin": {}}, "limits": {"mean_error": -1}},
            "fairness.limits",
            "greater than or equal",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, section: str, fields: dict, place: str, said: str) -> None:
    changes = {"features": ["carrier", "origin", "humidity"]} if "orign" in str(fields) else {}
    with pytest.raises(ConfigError) as raised:
        _loaded(tmp_path, "flight_delay", section, fields, **changes)
    assert place in raised.value.message
    assert said in raised.value.message


@pytest.mark.parametrize(
    ("model", "section", "fields"),
    [
        ("flight_delay", "slices", {"columns": {"carrier": {}, "humidity": {}, "origin": {"values": ["EWR"]}}}),
        # A feature that only the source's other files know: `make check` finds a wrong one.
        ("flight_delay", "slices", {"columns": {"route_delay_7d": {"bounds": [0, 15]}}}),
        ("flight_delay", "slices", {"ages": {"route": {"bounds": [7, 30]}, "carrier": {}}}),
        ("flight_delay", "fairness", {"columns": {"origin": {}}, "limits": {"mean_absolute_error": 10}}),
        ("flight_outcome", "fairness", {"columns": {"origin": {}}, "limits": {"true_positive_rate": 0.2}}),
        ("card_fraud", "slices", {"columns": {"amount": {"bounds": [10, 100.5]}}, "metric": "roc_auc", "margin": 0.02}),
        ("card_fraud", "calibration", {"maximum_error": 0.01, "bins": 20}),
    ],
)
def test_what_is_right_is_loaded(tmp_path: Path, model: str, section: str, fields: dict) -> None:
    loaded = _loaded(tmp_path, model, section, fields)
    assert getattr(loaded.evaluation, section) != type(getattr(loaded.evaluation, section))()
