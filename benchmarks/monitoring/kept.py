"""The results of seeds, kept on disk: a killed run resumes, and its table can be printed."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter

from benchmarks.monitoring.results import SeedResult
from benchmarks.monitoring.seeds import Sizes, judged
from training import atomic

#: Code and definitions that decide the results: when they change, results are made again.
_MADE_BY = (
    "benchmarks/monitoring/*.py",
    "feature_repo/card_payments.*",
    "local/changes.py",
    "local/generator.py",
    "training/domain/**/*.py",
    "training/estimators/*.py",
    "training/models/card_fraud.yaml",
)
_ADAPTER = TypeAdapter(SeedResult)


def kept(sizes: Sizes, seeds: Sequence[int]) -> list[SeedResult]:
    """Those of the `seeds` that are there, for these sizes and the code as it is now."""
    paths = [_path(sizes, seed) for seed in seeds]
    return [_ADAPTER.validate_json(path.read_bytes()) for path in paths if path.is_file()]


def kept_or_judged(sizes: Sizes, seed: int) -> SeedResult:
    """The result of the seed; it is kept."""
    for found in kept(sizes, [seed]):
        return found
    made = judged(sizes, seed)
    atomic.write(_path(sizes, seed), _ADAPTER.dump_json(made))
    return made


def _path(sizes: Sizes, seed: int) -> Path:
    root, decides = Path(__file__).parents[2], [repr((sizes.customers, sizes.weeks, sizes.every))]
    decides += [repr(sizes.planted)]
    content = [path.read_bytes() for pattern in _MADE_BY for path in sorted(root.glob(pattern))]
    key = hashlib.sha256(b"".join([*(each.encode() for each in decides), *content])).hexdigest()[:16]
    return sizes.folder / "results" / f"{key}-{seed}.json"
