"""The steps of a stack, called one after the other in this process, for tests and benchmarks."""

from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from training.contract import messages as m
from training.contract.base import Days
from training.contract.errors import StepError
from training.contract.steps import STEPS
from training.settings import Settings


class Pipeline:
    """Runs steps with `settings`, from landed files to a registered version."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def step(self, name: str, **inputs: Any) -> Any:
        spec = STEPS[name]
        return spec.load()(spec.inputs.model_validate(inputs), self.settings)

    def ingest(self, source: str, files: Iterable[Path]) -> None:
        """Ingest landed files, `<landing>/<source>/<feed>/<partition>.parquet`, and compute the features."""
        versions: dict[str, int] = {}
        affected: list[Days] = []
        for path in sorted(files):
            ingested: m.IngestResult = self.step(
                "ingest", source=source, feed=path.parent.name, partition=path.stem, uri=str(path)
            )
            versions |= ingested.table_versions
            affected += [ingested.affected] if ingested.affected else []
        if not affected:  # A source without feature tables.
            return
        days = Days(start=min(days.start for days in affected), end=max(days.end for days in affected))
        self.step("features", source=source, days=days, table_versions=versions)

    def judge(
        self,
        model: str,
        as_of: date,
        window_days: int,
        estimators: Mapping[str, Mapping[str, Any]],
        seed: int = 0,
    ) -> m.EvaluateResult:
        """Dataset, one training run per estimator with these parameters, verdict. One that fails drops out."""
        dataset: m.DatasetResult = self.step("dataset", model=model, as_of=as_of, window_days=window_days, seed=seed)
        given = {"model": model, "dataset_uri": dataset.uri, "seed": seed}
        candidates, dropped_out = [], {}
        for name, parameters in estimators.items():
            try:
                trained: m.TrainResult = self.step(
                    "train", **given, estimator=name, parameters=parameters, reason="test"
                )
            except StepError as error:
                dropped_out[name] = str(error)
                continue
            candidates.append(m.Candidate(**trained.model_dump(include=set(m.Candidate.model_fields))))
        result: m.EvaluateResult = self.step("evaluate", **given, candidates=candidates, dropped_out=dropped_out)
        return result

    def register(self, model: str, evaluated: m.EvaluateResult) -> m.RegisterResult:
        """Register the challenger of a positive verdict."""
        decided = evaluated.model_dump(include={"challenger", "verdict", "champion_version"})
        result: m.RegisterResult = self.step("register", model=model, **decided)
        return result
