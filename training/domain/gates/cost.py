"""What the training of the challenger has cost, and how large its model is, against the limits in the spec."""

from collections.abc import Iterator

from training.contract.gate_limits import CostLimits
from training.contract.messages import Cost
from training.contract.retraining_spec import CostsSpec
from training.domain.gates import Gate

_HOUR, _MIB = 3600, 2**20


def cost(
    prices: CostsSpec,
    seconds: float | None,
    cpu_seconds: float | None,
    gpu_seconds: float | None,
    model_bytes: int | None,
) -> Cost:
    """The price is that of CPUs and GPUs. It is None when one that was used has no price, or its time is not known."""
    # What was not used needs no price.
    used = [each for each in ((cpu_seconds, prices.cpu_hour), (gpu_seconds, prices.gpu_hour)) if each != (0, None)]
    parts = [took / _HOUR * hour for took, hour in used if took is not None and hour is not None]
    return Cost(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        gpu_seconds=gpu_seconds,
        price=sum(parts) if parts and len(parts) == len(used) else None,
        unit=prices.unit,
        model_bytes=model_bytes,
    )


def gates(found: Cost, limits: CostLimits) -> Iterator[Gate]:
    """One sentence with all numbers, and one for each limit."""
    unit = f" {found.unit}" if found.unit else ""
    price = _number(found.price, unit, "no price is known")
    size = None if found.model_bytes is None else found.model_bytes / _MIB
    known = [
        _number(found.seconds, " s on the clock"),
        _number(found.cpu_seconds, " CPU s"),
        _number(found.gpu_seconds, " GPU s"),
    ]
    yield Gate("cost", True, f"the training took {', '.join(known)} ({price}); the model has {_number(size, ' MiB')}")
    for value, limit, what in (
        (found.seconds, limits.maximum_seconds, " s on the clock"),
        (found.cpu_seconds, limits.maximum_cpu_seconds, " CPU s"),
        (found.price, limits.maximum_price, unit or " units of money"),
        (size, limits.maximum_model_mib, " MiB of the model"),
    ):
        if limit is not None:
            # A comparison with NaN is false, so an unknown number fails.
            kept = (float("nan") if value is None else value) <= limit
            yield Gate("cost", kept, f"the cost of {_number(value, what)} may be at most {limit:g}{what}")


def _number(value: float | None, unit: str, unknown: str = "") -> str:
    if value is None:
        return unknown or f"an unknown number of{unit}"
    return f"{value:.4g}{unit}"
