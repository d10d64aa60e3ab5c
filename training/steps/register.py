"""Register the challenger as a model version, when the verdict or a person says so."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from training import evidence_page
from training.adapters.lake import Lake
from training.adapters.ledger import Ledger
from training.adapters.onnx_model import OnnxModel
from training.adapters.prediction_table import newest_model_version
from training.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS, ModelVersion, Registry, Runs, table_tags
from training.adapters.registry.anchors import LEDGER_HEAD
from training.contract.artifact import ArtifactMetadata
from training.contract.errors import DataContractError, InputError
from training.contract.messages import RegisterInputs, RegisterResult
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.traffic import FirstLoad
from training.domain.rollout import ROLLBACK, ROLLOUT
from training.evidence_page import model_card, page
from training.settings import StateSettings

log = logging.getLogger("perennial")


def run(inputs: RegisterInputs, settings: StateSettings) -> RegisterResult:
    """One version per run, however often this is called; the alias `challenger` then names it.

    A version that serves already, or did before, keeps its alias. Raises InputError, unless forced, when the verdict
    is negative or another champion serves by now than the one judged against; DataContractError when the artifact is
    not the one judged or does not reproduce its golden rows; TransientError when MLflow does not answer.
    """
    spec, challenger = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo), inputs.challenger
    if not (inputs.verdict.promote or inputs.force):
        reasons = "; ".join(inputs.verdict.reasons)
        hint = "Train again, or register it by force."
        raise InputError(f"The verdict on the challenger is negative: {reasons}", hint)
    registry = Registry(settings.tracking_uri)
    ledger = Ledger(settings.ledger)
    moves = [each.body for each in ledger.entries(spec.name) if each.kind in (ROLLOUT, ROLLBACK)]
    champion = registry.by_alias(spec.name, CHAMPION)
    if champion and champion.version not in {body["version"] for body in moves}:
        why = "the alias was moved by hand, or the ledger was restored from an older copy"
        log.warning(
            "The ledger does not say how version %d of %s became champion: %s", champion.version, spec.name, why
        )
    if not inputs.force:
        _check_champion(inputs, champion)
    artifact = OnnxModel.load(challenger.artifact_uri, maximum_mib=settings.artifact_maximum_mib)
    if artifact.metadata.digest != challenger.digest:
        problem = f"{challenger.artifact_uri} holds {artifact.metadata.digest}, judged was {challenger.digest}"
        raise DataContractError(problem, hint="Evaluate again.")
    artifact.check_golden()
    tags, description = _tags(inputs, artifact.metadata), _description(inputs, artifact.metadata)
    tags[LEDGER_HEAD] = ledger.head(spec.name)
    above = _highest_known(spec, moves, settings)
    version = registry.register(spec.name, challenger.run_id, challenger.digest, tags, description, above)
    registry.describe(spec.name, _model_description(spec))
    _keep_evidence(version, inputs, artifact.metadata, spec, settings)
    if not version.aliases & {CHAMPION, PREVIOUS}:
        # Before the alias, which all replicas follow: the version waits for its rollout.
        registry.load_first(spec.name, FirstLoad(version=version.version))
        registry.set_alias(spec.name, CHALLENGER, version.version)
    forced = "" if inputs.verdict.promote else ", by force"
    log.info(
        "%s version %d is %s of run %s%s", spec.name, version.version, challenger.estimator, version.run_id, forced
    )
    return RegisterResult(version=version.version, digest=version.digest)


def _check_champion(inputs: RegisterInputs, champion: ModelVersion | None) -> None:
    """A verdict holds for the champion that it was reached against.

    The challenger itself may be it by now: then this step runs again after its rollout. In a registry that was restored
    from an older copy, another artifact may have the number of the champion.
    """
    judged, serving = inputs.champion_version, champion.version if champion else None
    before, now = inputs.verdict.champion_digest, champion.digest if champion else None
    if champion is not None and champion.run_id == inputs.challenger.run_id:
        return
    if serving == judged and (before is None or before == now):
        return
    named = ["no champion" if version is None else f"version {version}" for version in (judged, serving)]
    if serving == judged:
        named = [f"{named[0]} with digest {before}", f"another one, with digest {now},"]
    raise InputError(
        f"The challenger was judged against {named[0]} of {inputs.model}, {named[1]} serves now",
        hint=f"Start another run of {inputs.model}_train: a run compares with the champion that it began with.",
    )


def _highest_known(spec: ModelSpec, moves: list[dict[str, Any]], settings: StateSettings) -> int:
    """The highest version that the `moves` of the ledger, or the predictions, name; 0 when they name none.

    A registry that was restored from an older copy may lack it. Its number must not go to another artifact: monitoring
    and audit would take the two for one.
    """
    logged = newest_model_version(Lake(settings.lake, spec.source.name, spec.name))
    return max([logged, *(int(body["version"]) for body in moves)])


def _description(inputs: RegisterInputs, metadata: ArtifactMetadata) -> str:
    """What a person reads on the page of the version in MLflow."""
    verdict = "Promoted by its verdict" if inputs.verdict.promote else "Registered by force against its verdict"
    trained = f"{metadata.estimator}, trained as of {metadata.as_of}. Reason: {inputs.reason or 'none given'}."
    where = f"Evidence: {evidence_page.FOLDER}/{evidence_page.PAGE} among the artifacts of the run."
    return f"{trained}\n\n{verdict}:\n" + "\n".join(f"- {reason}" for reason in inputs.verdict.reasons) + f"\n\n{where}"


def _model_description(spec: ModelSpec) -> str:
    """What a person reads on the page of the model in MLflow."""
    said = f"{spec.title}. {spec.description}".strip()
    return f"{said}\n\nOwner: {spec.owner}. Learns {spec.label} from {spec.source.title} ({spec.task.kind})."


def _keep_evidence(
    version: ModelVersion, inputs: RegisterInputs, metadata: ArtifactMetadata, spec: ModelSpec, settings: StateSettings
) -> None:
    """Log the evidence page and the model card as artifacts of the version's run. Another call writes both again."""
    runs = Runs(settings.tracking_uri, spec.name, str(settings.home / "mlflow"))
    with TemporaryDirectory() as fetched, TemporaryDirectory() as written:
        tags = runs.tags(version.run_id)
        found = evidence_page.gather(version.version, inputs, metadata, spec, tags, Path(fetched), settings)
        Path(written, evidence_page.PAGE).write_text(page.html(found))
        Path(written, evidence_page.MODEL_CARD).write_text(model_card.model_card(found))
        runs.log_files(version.run_id, Path(written), evidence_page.FOLDER)


def _tags(inputs: RegisterInputs, metadata: ArtifactMetadata) -> dict[str, str]:
    tags = {
        "verdict": "promote" if inputs.verdict.promote else "keep",
        "verdict_reasons": "\n".join(inputs.verdict.reasons),
        "forced": str(inputs.force and not inputs.verdict.promote).lower(),
        "reason": inputs.reason,
        "estimator": metadata.estimator,
        "dataset_id": metadata.dataset_id,
        "as_of": str(metadata.as_of),
        "config_hash": metadata.config_hash,
    }
    return tags | table_tags(metadata.table_versions)
