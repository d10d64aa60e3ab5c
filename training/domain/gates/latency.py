"""How long one row takes, against a budget in the spec.

Other load on the machine only adds time, so the best of several rounds says most about the model (as the documentation
of Python's timeit says of the minimum).
"""

from collections.abc import Iterator

import numpy as np

from training.contract.gate_limits import LatencySpec
from training.contract.messages import Latency
from training.domain.gates import Gate


def latency(milliseconds: np.ndarray) -> Latency:
    """Of the times [rounds, calls] of single rows."""
    p99 = np.quantile(milliseconds, 0.99, axis=1)
    best = int(np.argmin(p99))
    return Latency(
        p50_ms=float(np.median(milliseconds[best])),
        p99_ms=float(p99[best]),
        rounds_p99_ms=p99.tolist(),
        calls=milliseconds.shape[1],
    )


def within(found: Latency, spec: LatencySpec) -> bool:
    """Whether the budget, if there is one, is kept."""
    return spec.maximum_p99_ms is None or found.p99_ms <= spec.maximum_p99_ms


def gates(found: Latency, spec: LatencySpec) -> Iterator[Gate]:
    rounds, worst = len(found.rounds_p99_ms), max(found.rounds_p99_ms)
    budget = "no budget is set" if spec.maximum_p99_ms is None else f"at most {spec.maximum_p99_ms:g} ms is allowed"
    sentence = (
        f"p99 of one row in ONNX Runtime is {found.p99_ms:.3f} ms, {budget}: the best of {rounds} rounds of "
        f"{found.calls} rows (the worst {worst:.3f} ms, the median row of the best {found.p50_ms:.3f} ms)"
    )
    yield Gate("latency", within(found, spec), sentence)
