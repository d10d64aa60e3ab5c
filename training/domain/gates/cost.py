"""What the training of the challenger has cost, and how large its model is, against the limits in the spec."""

from collections.abc import Iterator

from training.contract.gate_limits import CostLimits
from training.contract.messages import Cost, PartCost
from training.contract.retraining_spec import CostsSpec
from training.domain.gates import Gate

_HOUR, _MIB = 3600, 2**20

#: Wall seconds, CPU seconds and GPU seconds; None where not known.
Times = tuple[float | None, float | None, float | None]


def cost(prices: CostsSpec, times: Times, model_bytes: int | None, search: Times | None = None) -> Cost:
    """What the training took, `times`, and how much of that the `search` for parameters, if there was one."""
    seconds, cpu_seconds, gpu_seconds = times
    parts: dict[str, PartCost] = {}
    if search is not None:
        rest = [None if all_ is None or part is None else all_ - part for all_, part in zip(times, search, strict=True)]
        parts = {"search": _part(prices, search), "fit": _part(prices, (rest[0], rest[1], rest[2]))}
    return Cost(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        gpu_seconds=gpu_seconds,
        price=_price(prices, cpu_seconds, gpu_seconds),
        unit=prices.unit,
        model_bytes=model_bytes,
        **parts,
    )


def _part(prices: CostsSpec, times: Times) -> PartCost:
    seconds, cpu_seconds, gpu_seconds = times
    price = _price(prices, cpu_seconds, gpu_seconds)
    return PartCost(seconds=seconds, cpu_seconds=cpu_seconds, gpu_seconds=gpu_seconds, price=price)


def _price(prices: CostsSpec, cpu_seconds: float | None, gpu_seconds: float | None) -> float | None:
    """Of CPUs and GPUs. None when one that was used has no price, or its time is not known."""
    # What was not used needs no price.
    used = [each for each in ((cpu_seconds, prices.cpu_hour), (gpu_seconds, prices.gpu_hour)) if each != (0, None)]
    parts = [took / _HOUR * hour for took, hour in used if took is not None and hour is not None]
    return sum(parts) if parts and len(parts) == len(used) else None


def gates(found: Cost, limits: CostLimits) -> Iterator[Gate]:
    """One sentence with all numbers, and one for each limit."""
    unit = f" {found.unit}" if found.unit else ""
    size = None if found.model_bytes is None else found.model_bytes / _MIB
    said = f"the training took {_times(found, unit)}"
    if found.search is not None and found.fit is not None:
        said += f", of which the search took {_times(found.search, unit)} and the fit {_times(found.fit, unit)}"
    yield Gate("cost", True, f"{said}; the model has {_number(size, ' MiB')}")
    for value, limit, what in (
        (found.seconds, limits.maximum_seconds, " s of wall time"),
        (found.cpu_seconds, limits.maximum_cpu_seconds, " CPU s"),
        (found.price, limits.maximum_price, unit or " units of money"),
        (size, limits.maximum_model_mib, " MiB of the model"),
    ):
        if limit is not None:
            # A comparison with NaN is false, so an unknown number fails.
            kept = (float("nan") if value is None else value) <= limit
            yield Gate("cost", kept, f"the cost of {_number(value, what)} may be at most {limit:g}{what}")


def _times(part: Cost | PartCost, unit: str) -> str:
    known = [
        _number(part.seconds, " s of wall time"),
        _number(part.cpu_seconds, " CPU s"),
        _number(part.gpu_seconds, " GPU s"),
    ]
    return f"{', '.join(known)} ({_number(part.price, unit, 'no price is known')})"


def _number(value: float | None, unit: str, unknown: str = "") -> str:
    if value is None:
        return unknown or f"an unknown number of{unit}"
    return f"{value:.4g}{unit}"
