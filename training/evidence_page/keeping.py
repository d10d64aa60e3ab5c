"""Make the evidence of a version, when it is registered and again when a person has decided about it."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

from training import atomic
from training.adapters.registry import SERVED, ModelVersion, Registry, Runs
from training.contract.artifact import METADATA_FILE, ArtifactMetadata
from training.contract.messages import EvaluateResult, RegisterInputs
from training.contract.model_spec import ModelSpec
from training.evidence_page import FOLDER, MODEL_CARD, PAGE, gather, model_card, page
from training.settings import StateSettings
from training.workspace import EVIDENCE, share

log = logging.getLogger("perennial")

#: The verdict among the artifacts of a run; the step `evaluate` writes it.
_REPORT = "verdict/report.json"


def keep(
    version: ModelVersion, inputs: RegisterInputs, metadata: ArtifactMetadata, spec: ModelSpec, settings: StateSettings
) -> None:
    """Log the evidence page and the model card as artifacts of the version's run, and keep a copy with the reports.

    Another call writes both again.
    """
    runs = Runs(settings.tracking_uri, spec.name, str(settings.home / "mlflow"))
    with TemporaryDirectory() as fetched, TemporaryDirectory() as written:
        tags = runs.tags(version.run_id)
        found = gather(version.version, inputs, metadata, spec, tags, Path(fetched), settings)
        Path(written, PAGE).write_text(page.html(found))
        Path(written, MODEL_CARD).write_text(model_card.model_card(found))
        runs.log_files(version.run_id, Path(written), FOLDER)
        # A copy for the pages in Airflow's UI, which need no login of MLflow's.
        copy = settings.scratch / spec.name / EVIDENCE / str(version.version)
        for file in Path(written).iterdir():
            atomic.write(copy / file.name, file.read_bytes())
        share(settings, copy)


def keep_again(version: int, reason: str, spec: ModelSpec, settings: StateSettings) -> None:
    """The same for a version that was registered before. `reason`: why it was trained.

    Nothing changes when its run lacks what `evaluate` writes.
    """
    registry = Registry(settings.tracking_uri)
    found = registry.get(spec.name, version)
    with TemporaryDirectory() as folder:
        report, metadata = Path(folder, "report.json"), Path(folder, METADATA_FILE)
        wanted = {_REPORT: report, f"{SERVED}/{METADATA_FILE}": metadata}
        if not all(registry.download_file(found.run_id, path, to) for path, to in wanted.items()):
            log.warning("The evidence of %s version %d is not made again: its run has no verdict", spec.name, version)
            return
        judged = EvaluateResult.model_validate_json(report.read_bytes())
        known = ArtifactMetadata.model_validate_json(metadata.read_bytes())
    decided = {name: getattr(judged, name) for name in ("challenger", "verdict", "champion_version")}
    keep(found, RegisterInputs(model=spec.name, **decided, reason=reason), known, spec, settings)
