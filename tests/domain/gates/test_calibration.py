"""Calibration: the error, its interval, and the limit."""

import numpy as np
import pytest

from tests.cases import others_in_ci
from tests.domain.gates.models_on_rows import KINDS, Made
from training.adapters.plots import draw
from training.contract.verdict_spec import CalibrationSpec
from training.domain.evaluation_set import EvaluationSet
from training.domain.gates.calibration import judge_calibration, reliability_chart
from training.domain.gates.scored_model import ScoredModel
from training.domain.tasks.binary import ServedBinary
from training.domain.tasks.regression import ServedRegression


def _binary(labels: np.ndarray, scores: np.ndarray, entities: object = None) -> ScoredModel:
    made, served = Made("binary", n=100), ServedBinary(0.5)
    owners = np.arange(len(labels)) if entities is None else entities
    truth = EvaluationSet.of(labels, owners, np.zeros(len(labels)))
    return ScoredModel(made.task, made.task.scored(truth, scores.astype(np.float32), served), served)


def test_the_error_is_the_mean_distance_of_the_bins() -> None:
    """Two bins by hand: 0.2 predicted and 0.5 true; 0.7 predicted and 1 true."""
    model = _binary(np.array([0, 1, 1, 1]), np.array([0.2, 0.2, 0.7, 0.7]))
    result, gates = judge_calibration(CalibrationSpec(bins=2), model, None, 1)
    assert result is not None
    assert [(each.rows, each.predicted, each.observed) for each in result.bins] == [
        (2, pytest.approx(0.2), 0.5),
        (2, pytest.approx(0.7), 1.0),
    ]
    assert result.error == pytest.approx(0.3)
    assert gates == []


def test_of_several_classes_it_is_that_of_the_likeliest_one() -> None:
    made = Made("multiclass")
    model = made.model(noise=0)
    result, _ = judge_calibration(CalibrationSpec(), model, model, 1)
    assert result is not None
    assert result.of == "the probability of the likeliest class"
    assert result.champion == result.error
    assert result.error < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_is_kept_or_refused_with_the_numbers(kind: str) -> None:
    made = Made(kind)
    model = made.model(noise=0)
    result, (gate,) = judge_calibration(CalibrationSpec(maximum_error=0.2), model, made.model(noise=2.0), 1)
    assert result is not None
    assert result.champion is not None
    assert result.error < result.champion
    assert (gate.name, gate.passed) == ("calibration", True)
    assert f"{result.error:.4f} must be at most 0.2000: interval [" in gate.sentence
    assert f"the champion's is {result.champion:.4f}" in gate.sentence
    assert not judge_calibration(CalibrationSpec(maximum_error=1e-4), model, None, 1)[1][0].passed


@pytest.mark.parametrize(("samples", "have_it", "reach_down"), others_in_ci([(15, 12, 11), (40, 34, 30)]))
def test_the_interval_has_the_true_error_and_calibrated_scores_have_the_error_of_chance(
    samples: int, have_it: int, reach_down: int
) -> None:
    inside, near_zero, errors, by_chance = 0, 0, [], []
    for seed in range(samples):
        random = np.random.default_rng(seed)
        true = random.beta(1, 4, 3000)
        labels = (random.random(3000) < true).astype(np.int64)
        # Everywhere 0.1 too high.
        result, _ = judge_calibration(CalibrationSpec(), _binary(labels, true + 0.1), None, seed)
        assert result is not None
        assert result.low is not None
        assert result.high is not None
        inside += result.low <= 0.1 <= result.high
        calibrated, _ = judge_calibration(CalibrationSpec(), _binary(labels, true), None, seed)
        assert calibrated is not None
        assert calibrated.by_chance is not None
        assert calibrated.low is not None
        near_zero += calibrated.low < calibrated.error / 4
        errors.append(calibrated.error)
        by_chance.append(calibrated.by_chance)
    assert inside >= have_it, "the interval at 95 % has the true error in all but few samples"
    assert near_zero >= reach_down, "the interval of calibrated scores reaches down to no error"
    assert np.mean(errors) == pytest.approx(np.mean(by_chance), rel=0.15)


def test_a_regression_has_bands_of_the_prediction() -> None:
    made, served = Made("regression", n=1000), ServedRegression(1.0, 0.9)
    labels = np.linspace(0, 10, 1000)
    truth = EvaluationSet.of(labels, np.arange(1000), np.zeros(1000))
    scores = np.where(labels > 5, labels + 2, labels).astype(np.float32)
    model = ScoredModel(made.task, made.task.scored(truth, scores, served), served)
    result, _ = judge_calibration(CalibrationSpec(bins=2), model, None, 1)
    assert result is not None
    assert result.by_chance is None
    low, high = result.bins
    assert (low.predicted - low.observed, low.inside) == (pytest.approx(0, abs=1e-5), 1.0)
    # All high predictions are 2 too high, and their intervals of ±1 have none of the labels.
    assert (high.predicted - high.observed, high.inside) == (pytest.approx(2, abs=1e-5), 0.0)
    assert result.error == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("scores", [np.full(60, 0.5), np.zeros(60), np.ones(60), np.tile([0.0, 1.0], 30)])
def test_equal_and_extreme_predictions(scores: np.ndarray) -> None:
    labels = np.tile([0, 1], 30)
    result, (gate,) = judge_calibration(CalibrationSpec(maximum_error=0.01), _binary(labels, scores), None, 1)
    assert result is not None
    assert result.error == pytest.approx(abs(scores - labels).mean() if len(set(scores)) == 2 else abs(scores[0] - 0.5))
    assert gate.passed == (result.error <= 0.01)


def test_one_row_and_nothing_to_draw() -> None:
    result, _ = judge_calibration(CalibrationSpec(), _binary(np.array([1]), np.array([0.4])), None, 1)
    assert result is not None
    assert (result.low, result.high) == (None, None)
    assert result.error == pytest.approx(0.6)


def test_a_kind_without_calibration_fails_a_limit() -> None:
    class Other:
        calibrated = None

    made = Made("binary", n=100)
    model = ScoredModel(made.task, Other(), ServedBinary(0.5))  # type: ignore[arg-type]
    assert judge_calibration(CalibrationSpec(), model, None, 1) == (None, [])
    found, (gate,) = judge_calibration(CalibrationSpec(maximum_error=0.5), model, None, 1)
    assert found is None
    assert not gate.passed


@pytest.mark.parametrize("kind", KINDS)
def test_the_plot_has_both_models(kind: str, tmp_path: object) -> None:
    made = Made(kind, n=500)
    model, champion = made.model(), made.model()
    result, _ = judge_calibration(CalibrationSpec(), model, champion, 1)
    assert result is not None
    chart = reliability_chart(result, "mlp", champion, 10)
    labels = [part.label for part in chart.parts]  # type: ignore[union-attr]
    assert labels == ["calibrated", f"mlp: {result.error:.4f}", f"champion: {result.champion:.4f}"]
    draw(tmp_path, [chart])  # type: ignore[arg-type]
    assert (tmp_path / "reliability.png").read_bytes()[:4] == b"\x89PNG"  # type: ignore[operator]
