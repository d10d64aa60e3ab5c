"""The recipe of a model: written when it is trained, followed when it is made again."""

import hashlib
import os
import platform
import shutil
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import yaml

from training import sbom
from training.adapters.features import definitions_digest
from training.adapters.lake import Lake
from training.code import fitting_digest
from training.contract.messages import DatasetInputs, Snapshot
from training.contract.recipe import Recipe
from training.fit_job import FitJob
from training.settings import StateSettings
from training.workspace import own_state


def recipe_of(job: FitJob, device: str, settings: StateSettings) -> Recipe:
    """The recipe of the model that `job` has fitted on `device`."""
    manifest, spec, inputs = job.dataset.manifest, job.spec, job.inputs
    source = spec.source.name
    snapshot = Snapshot(as_of=manifest.as_of, table_versions=manifest.table_versions)
    window_days = manifest.window_days or len(manifest.train.days)
    dataset = DatasetInputs(
        model=spec.name, snapshot=snapshot, window_days=window_days, seed=manifest.seed, change=manifest.change
    )
    lake = Lake(settings.lake, source, spec.name)
    kept = inputs.model_dump(mode="json", exclude={"dataset_uri", "searched", "search_failures", "reason"})
    return Recipe(
        model_spec=(settings.models_dir / f"{spec.name}.yaml").read_text(),
        source_spec=(settings.feature_repo / f"{source}.yaml").read_text(),
        dataset=dataset,
        tables=lake.identities(manifest.table_versions),
        files={table: lake.files_digest(table, number) for table, number in manifest.table_versions.items()},
        definitions=definitions_digest(settings.feature_repo, spec.source),
        fit={**kept, "parameters": job.parameters},
        code=fitting_digest([inputs.estimator]),
        libraries=_libraries(),
        sbom=hashlib.sha256(bill_of_materials().encode()).hexdigest(),
        machine={
            "python": platform.python_version(),
            "platform": f"{sys.platform} {platform.machine()} {_processor()}".strip(),
            "cores": str(_cores()),
            "device": device,
        },
        threads=_threads(),
        git_sha=settings.git_sha,
        image=settings.image,
    )


@cache
def _libraries() -> dict[str, str]:
    """Library → version. Each `each.name` and `each.version` would read the metadata again: 0.2 s of CPU in all."""
    read = [each.metadata for each in distributions()]
    return {each["Name"].lower(): each["Version"] for each in read}


@cache
def bill_of_materials() -> str:
    """The bill of materials of this environment, CycloneDX in JSON."""
    return sbom.text(sbom.sbom("perennial-training"))


def _processor() -> str:
    """The name of the processor; empty where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads() -> dict[str, str]:
    """Recipe.threads. The last bits of what torch fits, and of NumPy's sums over many rows, depend on the number."""
    openmp = os.environ.get("OMP_NUM_THREADS", str(_cores()))
    blas = os.environ.get("OPENBLAS_NUM_THREADS", openmp)
    if torch := sys.modules.get("torch"):  # Where nothing has imported it, it has fitted nothing.
        openmp = str(torch.get_num_threads())
    return {"OMP_NUM_THREADS": openmp, "OPENBLAS_NUM_THREADS": blas}


def place_of(recipe: Recipe, source: str, folder: Path, settings: StateSettings) -> StateSettings:
    """Settings with which the steps `dataset` and `train` follow `recipe`: an empty state in `folder`, an MLflow of
    its own, the specs as they were, and the lake of `settings`.

    The code of the features is that of this process.
    """
    models, features = folder / "models", folder / "feature_repo"
    models.mkdir(parents=True)
    shutil.copytree(settings.feature_repo, features, ignore=shutil.ignore_patterns("__pycache__"))
    (features / f"{source}.yaml").write_text(recipe.source_spec)
    (models / f"{recipe.dataset.model}.yaml").write_text(_without_search(recipe.model_spec))
    return own_state(settings, folder / "home", models_dir=models, feature_repo=features)


def _without_search(text: str) -> str:
    """The spec without a search: the recipe has the parameters that it found."""
    fields = yaml.safe_load(text)
    if fields["training"].pop("search", None) is None:
        return text
    return yaml.safe_dump(fields, sort_keys=False)
