"""Metrics of multiclass tasks against scikit-learn, on all rows and on bootstrap samples, and the decision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, roc_auc_score, top_k_accuracy_score

from testing.spec_files import MODEL, Raw, spec_files
from training.contract.errors import ConfigError
from training.contract.model_spec import load_model_spec
from training.domain.evaluation_set import EvaluationSet
from training.domain.resampling import Sample
from training.domain.task_kind import Fitting, task_of
from training.domain.tasks.multiclass import Multiclass, ScoredMulticlass, ServedMulticlass

METRICS = ("log_loss", "macro_f1", "balanced_accuracy", "ovr_auc", "top_k_accuracy")
CLASSES = ("cancelled", "late", "on time")

#: Probabilities in sixteenths, which float32 holds exactly: two cuts of the sixteen.
probabilities = st.tuples(st.integers(0, 16), st.integers(0, 16)).map(
    lambda cuts: (min(cuts), max(cuts) - min(cuts), 16 - max(cuts))
)
#: (class, probabilities, weight) of each row.
rows = st.lists(st.tuples(st.sampled_from(CLASSES), probabilities, st.integers(0, 3)), min_size=3, max_size=60)


def scored(labels: np.ndarray, scores: np.ndarray, classes: tuple[str, ...] = CLASSES, k: int = 2) -> ScoredMulticlass:
    truth = EvaluationSet.of(labels, None, np.zeros(len(labels)))
    return ScoredMulticlass(truth, scores, ServedMulticlass(classes), METRICS, k)


def expected(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    likeliest = np.array(CLASSES)[scores.argmax(axis=1)]
    found = {
        "log_loss": log_loss(labels, scores, labels=CLASSES),
        "macro_f1": f1_score(labels, likeliest, average="macro", zero_division=0),
        "top_k_accuracy": top_k_accuracy_score(labels, scores, k=2, labels=CLASSES),
    }
    occurring = set(labels)
    # scikit-learn warns where a class is predicted that does not occur.
    if len(occurring) > 1 and set(likeliest) <= occurring:
        found["balanced_accuracy"] = balanced_accuracy_score(labels, likeliest)
    if len(occurring) == 3:
        found["ovr_auc"] = roc_auc_score(labels, scores, multi_class="ovr", labels=CLASSES)
    return found


@given(rows)
@settings(max_examples=40, deadline=None)
def test_metrics_are_those_of_scikit_learn(rows: list[tuple[str, tuple[int, int, int], int]]) -> None:
    labels = np.array([label for label, _, _ in rows], dtype=object)
    scores = np.array([sixteenths for _, sixteenths, _ in rows], dtype=np.float32) / 16
    weights = np.array([weight for _, _, weight in rows])
    repeated = np.repeat(np.arange(len(rows)), weights)
    found = scored(labels, scores)
    for metric, value in expected(labels, scores).items():
        assert found.value(metric) == pytest.approx(value), metric
    if len(repeated):
        for metric, value in expected(labels[repeated], scores[repeated]).items():
            assert found.value(metric, Sample(weights)) == pytest.approx(value), metric


def test_a_class_that_the_model_does_not_know_is_missed_and_not_left_out() -> None:
    labels = np.array(["late", "diverted", "on time"], dtype=object)
    scores = np.array([[0.1, 0.8, 0.1], [0.1, 0.2, 0.7], [0.2, 0.2, 0.6]], dtype=np.float32)
    found = scored(labels, scores)
    assert found.value("balanced_accuracy") == pytest.approx(2 / 3)
    assert found.value("log_loss") > 5
    # The order of the model's classes does not matter.
    other = scored(labels, scores[:, [2, 0, 1]], ("on time", "cancelled", "late"))
    assert other.measure() == pytest.approx(found.measure())


def test_groups_are_compared_by_the_decisions_of_the_model() -> None:
    labels = np.array(["late", "late", "on time"], dtype=object)
    scores = np.array([[0.1, 0.8, 0.1], [0.3, 0.2, 0.5], [0.01, 0.39, 0.6]], dtype=np.float32)
    truth, served = EvaluationSet.of(labels, None, np.zeros(len(labels))), ServedMulticlass(CLASSES, reject_below=0.55)
    rates = {rate.name: rate for rate in ScoredMulticlass(truth, scores, served, METRICS, 2).rates}
    # The second row is rejected, though "on time" is the likeliest class.
    assert rates["selection_rate of on time"].hits.tolist() == [0, 0, 1]
    assert rates["error_rate of on time"].hits.tolist() == [0, 0, 0]
    assert rates["true_positive_rate of late"].hits.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("served", "expected"),
    [
        (ServedMulticlass(CLASSES), ["late", "on time", "on time"]),
        (ServedMulticlass(CLASSES, reject_below=0.55), ["late", "reject", "on time"]),
        # Missing a cancelled flight costs 20 times as much as a false alarm.
        (ServedMulticlass(CLASSES, None, ("act", "wait"), ((0, 20), (1, 0), (1, 0))), ["act", "act", "wait"]),
    ],
)
def test_what_an_artifact_holds_comes_back_and_decides(served: ServedMulticlass, expected: list[str]) -> None:
    read = Multiclass.served(served.stored())
    assert read == served
    scores = np.array([[0.1, 0.8, 0.1], [0.3, 0.2, 0.5], [0.01, 0.39, 0.6]], dtype=np.float32)
    assert [read.decisions[number] for number in read.decide(scores)] == expected
    logged = read.outputs(scores)
    assert read.output_names == CLASSES
    np.testing.assert_array_equal(read.scores(logged).astype(np.float32), scores)
    answer = read.answer(logged[0].tolist())
    assert answer["class"] == "late"
    assert answer["probabilities"]["late"] == pytest.approx(0.8)
    assert Multiclass.answer_schema.keys() - {"decision"} == answer.keys()


@pytest.mark.parametrize(
    ("classes", "task", "evaluation", "said"),
    [
        (("go", "reject"), {"decision": {"reject_below": 0.5}}, {}, "A class is named reject"),
        (("no", "yes"), {}, {"primary": "top_k_accuracy"}, "with k = 2, which is always 1 for 2 classes"),
        (("a", "b", "c"), {"decision": {"reject_below": 0.5}}, {"primary": "top_k_accuracy"}, None),
        (("go", "reject"), {}, {}, None),
    ],
)
def test_classes_that_do_not_suit_the_spec_are_refused_before_anything_is_judged(
    tmp_path: Path, classes: tuple[str, ...], task: dict[str, Any], evaluation: dict[str, Any], said: str | None
) -> None:
    def change(model: Raw, source: Raw) -> None:
        model |= {
            "task": {"kind": "multiclass", **task},
            "evaluation": {"limits": {"log_loss": 1.0, "top_k_accuracy": 0.5}, **evaluation},
        }
        source["feeds"]["labels"]["columns"]["is_fraud"] = {"type": "string"}

    kind = task_of(load_model_spec(MODEL, *spec_files(tmp_path, change).values()))
    fitting = Fitting(classes, np.full((3, len(classes)), 1 / len(classes), np.float32))
    if said is None:
        kind.fit(fitting)
        return
    with pytest.raises(ConfigError, match=said):
        kind.fit(fitting)
