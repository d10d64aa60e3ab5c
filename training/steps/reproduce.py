"""Make a registered version again from its recipe, and compare."""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from training import storage
from training.adapters.ledger import Ledger
from training.adapters.registry import CHAMPION, ModelVersion, Registry
from training.adapters.registry.retention import FORGOTTEN
from training.contract.artifact import METADATA_FILE, ArtifactMetadata
from training.contract.errors import DataContractError, InputError, TransientError
from training.contract.messages import DatasetResult, Made, ReproduceInputs, ReproduceResult, StepReport, TrainResult
from training.contract.model_spec import load_model_spec
from training.contract.processes import end_with_parent
from training.contract.recipe import RECIPE_FILE, RECIPE_FOLDER, Recipe
from training.contract.steps import step_command
from training.domain.identity import digest
from training.domain.reproduction import causes, differences, tolerance
from training.recipe import place_of
from training.settings import PREFIX, ROOT, StateSettings, variable
from training.signing import fetch_signed
from training.verified import pinned_faults
from training.workspace import served_artifact

log = logging.getLogger("perennial")

REPRODUCTION = "reproduction"


def run(inputs: ReproduceInputs, settings: StateSettings) -> ReproduceResult:
    """Run the steps `dataset` and `train` again, in an empty folder and with an MLflow of their own.

    Compared are the dataset's id, the bytes of the model and each metric on the holdout. What was found goes to the
    ledger. Raises InputError for an unknown version and for one from before recipes were kept; DataContractError, after
    the entry is written, when the version could not be made again or came out differently, and before that when it is
    not signed as CT_TRUSTED_KEYS requires; TransientError when MLflow or the lake's store does not answer.
    """
    registry = Registry(settings.tracking_uri)
    version = _version(inputs, registry)
    metadata = _metadata(version, settings)
    before = Made(dataset_id=metadata.dataset_id, digest=version.digest, metrics=metadata.holdout_metrics)
    with TemporaryDirectory(prefix="perennial-reproduce-") as folder:
        recipe = _recipe(version, Path(folder, RECIPE_FILE), settings)
        result = _made_again(recipe, version, before, Path(folder), settings)
    for sentence in [*result.differences, *result.causes]:
        log.info("%s", sentence)
    body = result.model_dump(mode="json") | {"digest": version.digest}
    # Found again, it is the same entry.
    Ledger(settings.ledger).append(REPRODUCTION, inputs.model, body, f"v{version.version}:{digest(body, 12)}")
    if result.outcome == "same":
        log.info("Version %d of %s was made again: it is the same", version.version, inputs.model)
        return result
    hint = "; ".join(result.causes) or "Nothing that the recipe names has changed: the fit may not be deterministic"
    raise DataContractError(
        f"Version {version.version} of {inputs.model} is not reproduced: {'; '.join(result.differences)}",
        hint=f"{hint}. To use the code that it was made with, check out commit {recipe.git_sha} or run image "
        f"{recipe.image}.",
    )


def _version(inputs: ReproduceInputs, registry: Registry) -> ModelVersion:
    if inputs.version is not None:
        return registry.get(inputs.model, inputs.version)
    champion = registry.by_alias(inputs.model, CHAMPION)
    if champion is None:
        raise InputError(f"{inputs.model} has no champion", hint="Name a version.")
    return champion


def _metadata(version: ModelVersion, settings: StateSettings) -> ArtifactMetadata:
    content = storage.read(str(served_artifact(settings, version) / METADATA_FILE))
    assert content is not None
    return ArtifactMetadata.model_validate_json(content)


def _recipe(version: ModelVersion, file: Path, settings: StateSettings) -> Recipe:
    named = f"{version.model} version {version.version}"
    if not fetch_signed(version.run_id, f"{RECIPE_FOLDER}/{RECIPE_FILE}", file, named, settings):
        problem = f"The run of {named} has no {RECIPE_FOLDER}/{RECIPE_FILE}"
        raise InputError(problem, hint="It was trained before recipes were kept. Train a new version.")
    try:
        return Recipe.model_validate_json(file.read_bytes())
    except ValidationError as error:
        problem = f"The recipe of {named} is not valid: {error}"
        raise DataContractError(problem, hint="Restore MLflow's artifacts from a backup.") from error


def _made_again(
    recipe: Recipe,
    version: ModelVersion,
    before: Made,
    folder: Path,
    settings: StateSettings,
) -> ReproduceResult:
    source = load_model_spec(version.model, settings.models_dir, settings.feature_repo).source.name
    place = place_of(recipe, source, folder / "place", settings)
    forgotten = _forgotten(version, settings)
    altered = [] if forgotten else pinned_faults(recipe, source, settings, read=True)
    try:
        asked = recipe.dataset.model_dump(mode="json")
        data = DatasetResult.model_validate(_run("dataset", asked, folder, place, recipe.threads))
        fit = {**recipe.fit, "dataset_uri": data.uri}
        trained = TrainResult.model_validate(_run("train", fit, folder, place, recipe.threads))
    except DataContractError as error:
        log.warning("The version cannot be made again: %s", error)
        nothing: dict[str, Any] = {"causes": altered, "now": None, "tolerance": 0.0}
        gone = [error.message, *forgotten]
        return ReproduceResult(
            version=version.version, outcome="impossible", differences=gone, before=before, **nothing
        )
    followed = folder / "followed.json"
    Registry(place.tracking_uri).download_file(trained.run_id, f"{RECIPE_FOLDER}/{RECIPE_FILE}", followed)
    metadata = ArtifactMetadata.model_validate_json(Path(trained.artifact_uri, METADATA_FILE).read_bytes())
    now = Made(dataset_id=data.dataset_id, digest=trained.digest, metrics=metadata.holdout_metrics)
    allowed = tolerance({recipe.machine["device"], trained.device})
    found = differences(before, now, allowed)
    return ReproduceResult(
        version=version.version,
        outcome="different" if found else "same",
        differences=found,
        causes=altered + causes(recipe, Recipe.model_validate_json(followed.read_bytes())),
        before=before,
        now=now,
        tolerance=allowed,
    )


def _forgotten(version: ModelVersion, settings: StateSettings) -> list[str]:
    """That rows which the version learned from were removed on request, if they were."""
    entries = Ledger(settings.ledger).entries(version.model, FORGOTTEN)
    return [
        f"Rows of a person that it learned from were forgotten on {entry.at:%Y-%m-%d}, ledger entry {entry.key}"
        for entry in entries
        if version.version in entry.body["versions"]
    ]


def _run(step: str, inputs: dict[str, Any], folder: Path, place: StateSettings, threads: Mapping[str, str]) -> Any:
    """The result of `step`, run in a process of its own with as many `threads` (Recipe.threads).

    Raises DataContractError when it fails, TransientError when a retry may help.
    """
    report = folder / f"{step}.json"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment |= {
        variable(name): str(getattr(place, name)) for name in place.model_fields_set if getattr(place, name)
    }
    environment |= threads
    command = [sys.executable, *step_command(step, inputs, str(report))]
    log.info("Running %s again in %s", step, folder)
    code = subprocess.run(command, env=environment, cwd=ROOT, check=False, preexec_fn=end_with_parent).returncode
    if not report.is_file():
        raise TransientError(f"The step {step} ended with {code} and no report", hint="Its log is above. Retry.")
    found = StepReport.model_validate_json(report.read_bytes())
    if found.error is None:
        return found.result
    raised = TransientError if found.error.retryable else DataContractError
    raise raised(f"{step}: {found.error.message}", hint=found.error.hint)
