"""The evidence of a version: what it is, what it was made of, why it may serve. One HTML page and a model card.

Both are artifacts of the version's MLflow run, in the folder `evidence`. They are made when the version is registered,
and made again when a person has decided about it (keeping.py).
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from training.adapters.lake import Lake
from training.adapters.ledger import Entry, Ledger
from training.adapters.quarantine_table import Quarantine
from training.adapters.registry import REFERENCE, Registry
from training.contract.artifact import ArtifactMetadata
from training.contract.base import Days
from training.contract.messages import RegisterInputs
from training.contract.model_spec import ModelSpec
from training.contract.recipe import RECIPE_FILE, RECIPE_FOLDER, Recipe
from training.domain.approval import APPROVAL, Approvals
from training.domain.partitions import partition_days
from training.settings import StateSettings

#: The folder of the run's artifacts, and its files.
FOLDER, PAGE, MODEL_CARD = "evidence", "index.html", "model_card.md"
#: Entries of the ledger that the page shows.
NEWEST_ENTRIES = 12
_PLOTS = "plots"
_IMPORTANCE = "feature_importance.json"


@dataclass(frozen=True)
class Evidence:
    """Everything that the page and the model card show."""

    version: int
    inputs: RegisterInputs
    metadata: ArtifactMetadata
    spec: ModelSpec
    run_tags: dict[str, str]
    recipe: Recipe | None
    #: Sample of the training features.
    reference: pd.DataFrame | None
    #: Feature → by how much the primary metric gets worse when it is shuffled.
    importance: dict[str, float] = field(default_factory=dict)
    #: Name → PNG.
    plots: dict[str, bytes] = field(default_factory=dict)
    #: (feed, reason) → quarantined rows of the days of training and holdout.
    quarantined: Counter[tuple[str, str]] = field(default_factory=Counter)
    entries: list[Entry] = field(default_factory=list)
    approvals: Approvals | None = None


def gather(
    version: int,
    inputs: RegisterInputs,
    metadata: ArtifactMetadata,
    spec: ModelSpec,
    run_tags: dict[str, str],
    folder: Path,
    settings: StateSettings,
) -> Evidence:
    """Read what is shown. `folder` is an empty one for what is downloaded.

    What a run of an earlier version of Perennial does not have is left out. Raises TransientError when MLflow or the
    lake's store does not answer, DataContractError when the ledger is broken.
    """
    registry, run = Registry(settings.tracking_uri), inputs.challenger.run_id
    recipe, reference = folder / RECIPE_FILE, folder / "reference.parquet"
    has_recipe = registry.download_file(run, f"{RECIPE_FOLDER}/{RECIPE_FILE}", recipe)
    has_reference = registry.download_file(run, f"{REFERENCE}/{reference.name}", reference)
    plots = {name: folder / name for name in registry.files(run, _PLOTS)}
    for name, file in plots.items():
        registry.download_file(run, f"{_PLOTS}/{name}", file)
    days = Days(start=metadata.train_days.start, end=metadata.holdout_days.end)
    entries = Ledger(settings.ledger).entries(spec.name)
    return Evidence(
        version=version,
        inputs=inputs,
        metadata=metadata,
        spec=spec,
        run_tags=run_tags,
        recipe=Recipe.model_validate_json(recipe.read_bytes()) if has_recipe else None,
        reference=pd.read_parquet(reference) if has_reference else None,
        importance=json.loads(plots[_IMPORTANCE].read_text()) if _IMPORTANCE in plots else {},
        plots={name: file.read_bytes() for name, file in plots.items() if file.suffix == ".png"},
        quarantined=_quarantined(Lake(settings.lake, spec.source.name), spec, days),
        entries=entries[-NEWEST_ENTRIES:],
        approvals=Approvals.of([entry.body for entry in entries if entry.kind == APPROVAL]),
    )


def _quarantined(lake: Lake, spec: ModelSpec, days: Days) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for row in Quarantine(lake).rows("feed", "partition", "reason", feeds=spec.feed_names):
        of = partition_days(row["partition"])
        if of.start < days.end and days.start < of.end:
            found[row["feed"], row["reason"]] += 1
    return found
