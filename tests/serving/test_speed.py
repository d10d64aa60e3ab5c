"""A slow model works in threads: it must not hold up the event loop, where other models answer."""

import time
from bisect import bisect_left
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from serving.loaded_model import LoadedModel, MeasuredModel
from serving.schema import made_up_row
from serving.speed import CALLS, SLOW_SECONDS, VERY_SLOW_SECONDS, Speed
from testing.serving_artifacts import artifact
from training.adapters.features import Features, MergedViews
from training.adapters.onnx_model import OnnxModel
from training.contract.model_spec import ModelSpec
from training.contract.signals import TIME_BUCKETS
from training.settings import Settings

NAMES = ["payment_amount", "weekend"]


def test_work_is_slow_when_the_fastest_of_a_few_calls_is() -> None:
    speed = Speed()
    for _ in range(CALLS):
        assert not speed.slow
        speed.judge(2 * SLOW_SECONDS)
    assert speed.slow
    for _ in range(CALLS):
        speed.judge(SLOW_SECONDS / 2)
    assert speed.slow, "half as long is not fast enough to go back to the event loop"
    for _ in range(CALLS):
        speed.judge(SLOW_SECONDS / 10)
    assert not speed.slow


def test_a_delayed_call_among_fast_ones_does_not_count() -> None:
    speed = Speed()
    for number in range(CALLS):
        speed.judge(2 * SLOW_SECONDS if number else SLOW_SECONDS / 10)
    assert not speed.slow


def test_one_very_slow_call_is_enough() -> None:
    speed = Speed()
    speed.judge(2 * VERY_SLOW_SECONDS)
    assert speed.slow


def test_a_model_that_waits_for_its_turn_is_not_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a busy machine, where its thread waits for others. A thread that sleeps uses no CPU either."""
    model = MeasuredModel.load(artifact(tmp_path / "fast", NAMES, -1.0))
    score = OnnxModel.score

    def late(self: OnnxModel, features: np.ndarray) -> np.ndarray:
        time.sleep(2 * VERY_SLOW_SECONDS)
        return score(self, features)

    monkeypatch.setattr(OnnxModel, "score", late)
    for _ in range(CALLS):
        model.score(np.ones((1, len(NAMES)), np.float32))
    waited = sum(model.work.times[bisect_left(TIME_BUCKETS, VERY_SLOW_SECONDS) + 1 :])
    assert waited == CALLS
    assert not model.speed.slow


def test_a_slow_model_is_known_before_its_first_request(tmp_path: Path, spec: ModelSpec) -> None:
    plan = Features(Settings(home=tmp_path), spec).plan(NAMES)
    model = MeasuredModel.load(artifact(tmp_path / "slow", NAMES, -1.0, slow=100))
    loaded = LoadedModel(1, "d", model, plan, made_up_row(spec), datetime.now(UTC))
    loaded.measure(MergedViews({plan}).missing(1))
    assert loaded.slow
    assert (model.work.scored, sum(model.work.times)) == (0, 0), "what is measured at load is no prediction"
