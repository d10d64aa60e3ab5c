"""The section `task`, and what depends on it: defaults and metrics of evaluation, and which labels are valid."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from training.contract.columns import Column
from training.contract.errors import ConfigError
from training.contract.messages import Split, Verdict
from training.contract.model_spec import MODELS_DIR, ModelSpec, load_model_spec
from training.contract.tasks import (
    BinaryTask,
    MulticlassTask,
    OtherTask,
    RegressionTask,
    Relative,
    TaskSection,
    allowed,
)

KINDS = {"binary": BinaryTask, "multiclass": MulticlassTask, "regression": RegressionTask}


def load(folder: Path, **sections: Any) -> ModelSpec:
    """card_fraud's spec with these sections, as load_model_spec reads it."""
    raw = yaml.safe_load((MODELS_DIR / "card_fraud.yaml").read_text())
    for name, section in sections.items():
        raw[name] = section
    (folder / "card_fraud.yaml").write_text(yaml.safe_dump(raw))
    return load_model_spec("card_fraud", folder)


@pytest.mark.parametrize(
    ("task", "evaluation", "complaint"),
    [
        ({}, {}, "task.kind is missing"),
        ({"kind": "ranking"}, {}, "task.kind: Input should be 'binary', "),
        ({"kind": "binary", "interval": {}}, {}, "task.interval: There is no such field"),
        ({"kind": "binary", "decision": {"alert_rate": 2.0}}, {}, "task.decision.alert_rate: Input should be less"),
        (
            {"kind": "binary", "decision": {"alert_rate": 0.1, "threshold": 0.5}},
            {},
            "task.decision.threshold is given beside alert_rate",
        ),
        (
            {"kind": "binary", "decision": {"costs": {"false_positive": 0.0, "false_negative": 9.0}}},
            {},
            "task.decision.costs.false_positive is 0, not above true_negative (0)",
        ),
        (
            {"kind": "multiclass", "decision": {"reject_below": 0.5, "costs": {"a": {"b": 1.0}}}},
            {},
            "task.decision.reject_below is given beside costs",
        ),
        ({"kind": "binary"}, {"primary": "rmse"}, "evaluation.primary names rmse, which the task binary does not have"),
        (
            {"kind": "binary"},
            {"primary": "recall_at_decision", "limits": {"recall_at_decision": 0.5}},
            "evaluation.primary is recall_at_decision, in which no model can be better than the naive reference",
        ),
        ({"kind": "binary"}, {"margins": {"rmse": 1.0}}, "evaluation.margins names rmse"),
        ({"kind": "binary"}, {"margins": {"roc_auc": 1.5}}, "evaluation.margins.roc_auc is 1.5, but the metric is"),
        ({"kind": "binary"}, {"entity": None}, "evaluation.exclude_known_entities is true, but only a binary task"),
    ],
)
def test_what_contradicts_the_task_is_named(tmp_path: Path, task: dict, evaluation: dict, complaint: str) -> None:
    base = yaml.safe_load((MODELS_DIR / "card_fraud.yaml").read_text())["evaluation"]
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, task=task, evaluation={**base, **evaluation})
    assert complaint in raised.value.message


def test_defaults_follow_the_task_and_the_entity(tmp_path: Path) -> None:
    limits = {"average_precision": 0.1}
    spec = load(tmp_path, task={"kind": "binary"}, evaluation={"limits": limits, "entity": "customer_id"}, rollout={})
    evaluation = spec.evaluation
    assert (evaluation.primary, evaluation.k, evaluation.exclude_known_entities) == ("average_precision", 100, True)
    assert (spec.task.alert_rate, spec.rollout.sticky_by) == (0.005, "customer_id")
    spec = load(tmp_path, task={"kind": "binary"}, evaluation={"limits": limits}, rollout={})
    assert (spec.evaluation.entity, spec.evaluation.exclude_known_entities) == (None, False)
    assert spec.rollout.sticky_by == "transaction_id"


def test_the_sections_of_each_kind_are_read() -> None:
    assert KINDS["binary"](kind="binary").rules == BinaryTask.METRICS
    assert "interval_coverage" not in RegressionTask(kind="regression").rules
    assert "interval_coverage" in RegressionTask.model_validate({"kind": "regression", "interval": {}}).rules
    decided = MulticlassTask.model_validate({"kind": "multiclass", "decision": {"reject_below": 0.5}}).decision
    assert decided.reject_below == 0.5


@pytest.mark.parametrize(
    ("kind", "column", "mistake"),
    [
        ("binary", {"type": "int64", "values": [0, 1]}, ""),
        ("binary", {"type": "bool"}, ""),
        ("binary", {"type": "int64"}, "must limit the label to 0 and 1"),
        ("binary", {"type": "string"}, "the label of a binary task"),
        ("multiclass", {"type": "string"}, ""),
        ("multiclass", {"type": "int64"}, ""),
        ("multiclass", {"type": "float64"}, "the label of a multiclass task"),
        ("multiclass", {"type": "string", "values": ["late"]}, "allows one class only"),
        ("regression", {"type": "float64"}, ""),
        ("regression", {"type": "int64"}, ""),
        ("regression", {"type": "string"}, "the label of a regression"),
        ("regression", {"type": "timestamp"}, "the label of a regression"),
    ],
)
def test_the_label_suits_the_task(kind: str, column: dict, mistake: str) -> None:
    section: TaskSection = KINDS[kind].model_validate({"kind": kind})
    found = [what for _, what, _ in section.label_mistakes(Column.model_validate(column), False)]
    assert len(found) == bool(mistake)
    assert all(mistake in what for what in found)


def test_another_kind_keeps_its_own_fields() -> None:
    section = OtherTask.model_validate({"kind": "binary", "horizon": 3})
    assert section.model_dump() == {"kind": "binary", "horizon": 3}
    assert section.rules is None


def test_margins_are_absolute_or_relative() -> None:
    assert allowed(0.5, -10.0) == 0.5
    assert allowed(Relative(relative=0.02), -10.0) == pytest.approx(0.2)


def test_what_the_version_before_wrote_is_read() -> None:
    split = {"days": {"start": "2026-01-05", "end": "2026-01-06"}, "uri": "x", "rows": 10, "positives": 3}
    assert Split.model_validate(split).counts == {"negative": 7, "positive": 3}
    old = {"primary": "card_precision_at_k", "promote": True, "reasons": [], "confidence": 0.9, "difference": None}
    verdict = Verdict.model_validate({**old, "challenger": {"card_precision_at_k": 0.3}, "champion": None})
    assert (verdict.primary, verdict.challenger) == ("precision_at_k", {"precision_at_k": 0.3})
