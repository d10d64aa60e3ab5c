"""Tables of what a verdict knows beside metrics: robustness, cost, latency, other seeds, suspicion of leakage."""

from collections.abc import Iterator
from html import escape

from training import web_pages
from training.contract.messages import Cost, Latency, Leakage, PartCost, Robustness, Stability, Verdict

#: Title, and the HTML below it.
Section = tuple[str, str]
_MIB = 2**20


def sections(verdict: Verdict) -> Iterator[Section]:
    """One for each record that the verdict has: one of an earlier version of Perennial has none."""
    if verdict.robustness is not None:
        yield "Robustness", _robustness(verdict.robustness)
    if verdict.cost is not None:
        yield "Cost of the training", _cost(verdict.cost)
    if verdict.latency is not None:
        yield "Latency", _latency(verdict.latency)
    if verdict.stability is not None:
        yield "Other seeds", _stability(verdict.stability)
    if verdict.leakage is not None:
        yield "Suspicion of leakage", _leakage(verdict.leakage, verdict.primary)


def _robustness(found: Robustness) -> str:
    head = ["change", "columns", "predictions", "changed", "at most", "not a number", "most"]
    rows = []
    for test in found.tests:
        most = sorted((test.worst or test.by_decision).items(), key=lambda item: -item[1])
        shown = ", ".join(f"{name}: {share:.2%}" for name, share in most)
        numbers = [str(test.columns), f"{test.rows:,}", _share(test.changed), _share(test.maximum)]
        rows.append([test.described, *numbers, f"{test.not_finite:,}", shown or "–"])
    said = f"Features of {found.rows:,} rows of the holdout were changed within the rules of their columns. "
    said += "Changed means: "
    return f"<p>{said}{escape(found.unit.format('so many'))}.</p>{web_pages.table(head, rows)}"


def _cost(found: Cost) -> str:
    size = None if found.model_bytes is None else found.model_bytes / _MIB
    parts: dict[str, Cost | PartCost] = {"all": found}
    if found.search is not None and found.fit is not None:
        parts |= {"search for parameters": found.search, "fit": found.fit}
    rows = [
        ["wall seconds", *(_number(part.seconds) for part in parts.values())],
        ["CPU seconds", *(_number(part.cpu_seconds) for part in parts.values())],
        ["GPU seconds", *(_number(part.gpu_seconds) for part in parts.values())],
        ["price of the machines", *(f"{_number(part.price)} {found.unit}".strip() for part in parts.values())],
        ["size of model.onnx, MiB", _number(size), *[""] * (len(parts) - 1)],
    ]
    return web_pages.table(["", *(parts if len(parts) > 1 else [""])], rows)


def _latency(found: Latency) -> str:
    said = f"One row in ONNX Runtime, in milliseconds, in rounds of {found.calls:,} rows. The best round counts: "
    said += f"its p99 is {found.p99_ms:.3f}, its median {found.p50_ms:.3f}."
    rows = [[str(number), f"{p99:.3f}"] for number, p99 in enumerate(found.rounds_p99_ms, start=1)]
    return f"<p>{said}</p>{web_pages.table(['round', 'p99'], rows)}"


def _stability(found: Stability) -> str:
    deviation = "not known" if found.deviation is None else f"{found.deviation:.4f}"
    gain = "not known" if found.gain is None else f"{found.gain:+.4f}"
    said = f"{escape(found.metric)} of the same fit with other seeds. Standard deviation: {deviation}; "
    said += f"gain over the champion: {gain}."
    rows = [
        [f"{seed} (its own)" if seed == found.own_seed else str(seed), f"{each:.4f}"]
        for seed, each in found.values.items()
    ]
    rows += [[str(seed), f"failed: {why}"] for seed, why in found.failed.items()]
    return f"<p>{said}</p>{web_pages.table(['seed', found.metric], rows)}"


def _leakage(found: Leakage, primary: str) -> str:
    said = "How much of each output a feature explains alone: R² of a number, 2 · AUC − 1 of a class."
    outputs = list(found.model_explains)
    rows = [["the whole model", *(f"{found.model_explains[name]:.3f}" for name in outputs), ""]]
    for feature, values in found.explains.items():
        shares = [_three(values.get(name)) for name in outputs]
        rows.append([feature, *shares, "suspicious" if feature in found.suspects else ""])
    alone = web_pages.table(["feature", *outputs, ""], rows) if outputs else "<p>It could not be measured.</p>"
    former = [[str(version), f"{value:.4f}"] for version, value in found.former.items()]
    history = web_pages.table(["former champion", primary], former) if former else "<p>There is no former champion.</p>"
    return f"<p>{said}</p>{alone}<p>Former champions, on their own holdouts:</p>{history}"


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:,.4g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
