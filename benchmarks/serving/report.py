"""Prints what was measured, and whether it meets a goal."""

from statistics import median

from benchmarks.serving import load


def line(name: str, loads: list[load.Load]) -> None:
    rate, p50, p99 = (median(getattr(each, field) for each in loads) for field in ("per_second", "p50", "p99"))
    spread = f"{min(each.per_second for each in loads):,.0f}–{max(each.per_second for each in loads):,.0f}"
    failed = sum(each.failed for each in loads)
    cpu = median(each.cpu for each in loads)
    text = f"  {name:30} {rate:9,.0f}/s ({spread})  p50 {p50:6.2f} ms  p99 {p99:7.2f} ms"
    text += f"  {cpu:5.0f} µs of CPU" if cpu else ""
    print(text + (f"  {failed} failed" if failed else ""), flush=True)


def ratio(goal: str, ours: float, theirs: float, least: float) -> None:
    verdict(goal, ours >= least * theirs, f"{ours / theirs:.2f} ×")


def verdict(goal: str, met: bool, figure: str) -> None:
    print(f"  {'met   ' if met else 'MISSED'} {goal}: {figure}", flush=True)
