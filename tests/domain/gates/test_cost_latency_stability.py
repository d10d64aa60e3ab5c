"""Costs, times of single rows and other seeds against their limits. What is not known keeps no limit."""

import numpy as np
import pytest

from training.contract.gate_limits import CostLimits, LatencySpec
from training.contract.retraining_spec import CostsSpec
from training.domain.gates.cost import cost
from training.domain.gates.cost import gates as cost_gates
from training.domain.gates.latency import gates as latency_gates
from training.domain.gates.latency import latency, within
from training.domain.gates.stability import gates as stability_gates
from training.domain.gates.stability import stability

PRICES = CostsSpec(unit="EUR", cpu_hour=0.05, gpu_hour=2.0)


def test_the_price_is_that_of_cpus_and_gpus() -> None:
    found = cost(PRICES, (1800, 7200, 3600), 2**21)
    assert found.price == pytest.approx(2 * 0.05 + 2.0)
    (told,) = cost_gates(found, CostLimits())
    assert told.passed
    assert told.sentence == (
        "the training took 1800 s of wall time, 7200 CPU s, 3600 GPU s (2.1 EUR); the model has 2 MiB"
    )


@pytest.mark.parametrize(
    ("prices", "gpu", "price"),
    [
        (CostsSpec(), 0.0, None),
        (CostsSpec(cpu_hour=0.05), 0.0, 0.1),
        (CostsSpec(cpu_hour=0.05), 10.0, None),
        (CostsSpec(gpu_hour=2.0), 0.0, None),
        (CostsSpec(cpu_hour=0.0), 0.0, 0.0),
        (PRICES, None, None),
    ],
)
def test_a_price_that_lacks_a_part_is_not_known(prices: CostsSpec, gpu: float | None, price: float | None) -> None:
    assert cost(prices, (1.0, 7200.0, gpu), 1).price == (None if price is None else pytest.approx(price))


def test_what_the_search_took_is_told_apart_from_the_fit() -> None:
    found = cost(PRICES, (1800, 7200, 0), 2**21, search=(1500, 6480, 0))
    assert found.search is not None
    assert found.fit is not None
    assert (found.fit.seconds, found.fit.cpu_seconds, found.fit.gpu_seconds) == (300, 720, 0)
    assert found.search.price == pytest.approx(0.09)
    assert found.fit.price == pytest.approx(0.01)
    (told,) = cost_gates(found, CostLimits())
    assert told.sentence == (
        "the training took 1800 s of wall time, 7200 CPU s, 0 GPU s (0.1 EUR), of which the search took "
        "1500 s of wall time, 6480 CPU s, 0 GPU s (0.09 EUR) and the fit 300 s of wall time, 720 CPU s, 0 GPU s "
        "(0.01 EUR); the model has 2 MiB"
    )


@pytest.mark.parametrize("field", ["maximum_seconds", "maximum_cpu_seconds", "maximum_price", "maximum_model_mib"])
def test_each_limit_is_kept_or_not_and_an_unknown_number_fails(field: str) -> None:
    known, unknown = cost(PRICES, (10, 10, 0), 2**20), cost(PRICES, (None, None, None), None)
    for found, limit, kept in ((known, 1e6, True), (known, 1e-6, False), (unknown, 1e6, False)):
        _, gate = cost_gates(found, CostLimits.model_validate({field: limit}))
        assert gate.passed == kept
        assert "may be at most" in gate.sentence


def test_the_best_round_counts() -> None:
    calm, busy = np.full(100, 0.5), np.full(100, 0.5)
    busy[::10] = 30.0
    found = latency(np.array([busy, calm, busy]))
    assert (found.p50_ms, found.p99_ms) == (0.5, 0.5)
    assert max(found.rounds_p99_ms) == 30
    for spec, kept in (
        (LatencySpec(), True),
        (LatencySpec(maximum_p99_ms=0.5), True),
        (LatencySpec(maximum_p99_ms=0.4), False),
    ):
        (gate,) = latency_gates(found, spec)
        assert gate.passed == kept == within(found, spec)
        assert "0.500 ms" in gate.sentence
        assert "the best of 3 rounds of 100 rows (the worst 30.000 ms" in gate.sentence


def test_the_gain_must_exceed_what_a_seed_changes() -> None:
    values = {1: 0.60, 2: 0.62, 3: 0.58}
    deviation = float(np.std(list(values.values()), ddof=1))
    for gain, passed in ((0.03, True), (deviation, False), (0.01, False), (-0.5, False), (None, False)):
        found = stability("roc_auc", 1, values, {}, gain)
        assert found.deviation == pytest.approx(0.02)
        (gate,) = stability_gates(found, True)
        assert gate.passed == passed
    assert "0.0200 (0.6000, 0.6200, 0.5800)" in gate.sentence


def test_a_deterministic_estimator_deviates_by_nothing_and_says_so() -> None:
    (gate,) = stability_gates(stability("roc_auc", 1, {1: 0.6, 2: 0.6, 3: 0.6}, {}, 0.001), True)
    assert gate.passed
    assert "is 0.0000" in gate.sentence
    assert "because every seed gives the same metric" in gate.sentence


def test_a_fit_that_fails_or_has_no_metric_fails_the_gate() -> None:
    (gate,) = stability_gates(stability("roc_auc", 1, {1: 0.6, 2: 0.61}, {3: "ValueError: no"}, 0.3), True)
    assert not gate.passed
    assert "the fit with seed 3 failed: ValueError: no" in gate.sentence
    for values in ({1: 0.6}, {1: 0.6, 2: float("nan")}):
        found = stability("roc_auc", 1, values, {}, 0.3)
        assert (found.deviation, found.values) == (None, {1: 0.6})
        assert not next(stability_gates(found, True)).passed


def test_without_a_champion_seeds_limit_nothing() -> None:
    (gate,) = stability_gates(stability("roc_auc", 1, {1: 0.6, 2: 0.7}, {}, None), False)
    assert gate.passed
    assert "there is no champion yet" in gate.sentence
