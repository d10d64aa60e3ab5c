"""Register the challenger as a model version, when the verdict or a person says so."""

import hashlib
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from training import evidence_page, storage
from training.adapters.lake import Lake
from training.adapters.ledger import Ledger
from training.adapters.onnx_model import OnnxModel
from training.adapters.prediction_table import newest_model_version
from training.adapters.registry import CHALLENGER, CHAMPION, PREVIOUS, ModelVersion, Registry, table_tags
from training.adapters.registry.anchors import LEDGER_HEAD
from training.adapters.registry.versions import DESCRIPTION_LENGTH, METADATA_DIGEST
from training.approvals import approvals, end
from training.contract.artifact import METADATA_FILE, ArtifactMetadata
from training.contract.errors import DataContractError, InputError
from training.contract.messages import ApprovalRequest, AskedRun, JudgedAgainst, RegisterInputs, RegisterResult
from training.contract.model_spec import ModelSpec, load_model_spec
from training.contract.traffic import MODE, FirstLoad
from training.domain.approval import APPROVAL, Approvals, Ended, reasons_to_ask, request_key
from training.domain.rollout import ROLLBACK, ROLLOUT
from training.domain.task_kind import task_of
from training.evidence_page.keeping import keep
from training.judged_champion import another_run, champion_problem
from training.settings import StateSettings
from training.signing import SIGNED_BY, sign_run

log = logging.getLogger("perennial")


def run(inputs: RegisterInputs, settings: StateSettings) -> RegisterResult:
    """One version per run, however often this is called; the alias `challenger` then names it.

    A version that serves already, or did before, keeps its alias. When the spec says that a person decides, the ledger
    keeps the request for it. A version ends the requests of older versions that are still open.

    Raises InputError, unless forced, when the verdict is negative and nobody is asked, or another champion serves by
    now than the one judged against; DataContractError when the artifact is not the one judged or does not reproduce its
    golden rows; ConfigError when it must be signed and cannot be; TransientError when MLflow does not answer.
    """
    spec, challenger = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo), inputs.challenger
    primary, first = task_of(spec).rules[spec.evaluation.primary], inputs.champion_version is None
    why = reasons_to_ask(spec.approval, inputs.verdict, primary, first, inputs.force)
    if not (inputs.verdict.promote or inputs.force or why):
        reasons = "; ".join(inputs.verdict.reasons)
        hint = "Train again, or register it by force."
        raise InputError(f"The verdict on the challenger is negative: {reasons}", hint)
    registry = Registry(settings.tracking_uri)
    ledger = Ledger(settings.ledger)
    moves = [each.body for each in ledger.entries(spec.name) if each.kind in (ROLLOUT, ROLLBACK)]
    champion = registry.by_alias(spec.name, CHAMPION)
    if champion and champion.version not in {body["version"] for body in moves}:
        cause = "the alias was moved by hand, or the ledger was restored from an older copy"
        log.warning(
            "The ledger does not say how version %d of %s became champion: %s", champion.version, spec.name, cause
        )
    judged = JudgedAgainst(version=inputs.champion_version, digest=inputs.verdict.champion_digest)
    # After its rollout the challenger itself is the champion.
    serves = champion is not None and champion.run_id == challenger.run_id
    if not (inputs.force or serves) and (problem := champion_problem(spec.name, judged, champion)):
        raise InputError(problem, another_run(spec.name))
    artifact = OnnxModel.load(challenger.artifact_uri, maximum_mib=settings.artifact_maximum_mib)
    if artifact.metadata.digest != challenger.digest:
        problem = f"{challenger.artifact_uri} holds {artifact.metadata.digest}, the verdict is on {challenger.digest}"
        raise DataContractError(problem, hint="Evaluate again.")
    artifact.check_golden()
    tags, description = _tags(inputs, artifact.metadata), _description(inputs, artifact.metadata, why)
    tags[LEDGER_HEAD] = ledger.head(spec.name)
    content = storage.read(storage.join(challenger.artifact_uri, METADATA_FILE)) or b""
    tags[METADATA_DIGEST] = hashlib.sha256(content).hexdigest()
    # Before there is a version, so that every version is signed.
    if key := sign_run(spec.name, challenger.run_id, challenger.digest, challenger.artifact_uri, settings):
        tags[SIGNED_BY] = key
    above = _highest_known(spec, moves, settings)
    version = registry.register(spec.name, challenger.run_id, challenger.digest, tags, description, above)
    registry.describe(spec.name, _model_description(spec))
    judged_against = None if inputs.force else judged
    known = _approvals(version, inputs, why, judged_against, spec, settings)
    ended = version.version in known.ended
    keep(version, inputs, artifact.metadata, spec, settings)
    # During the rollout of another version, the alias divides traffic between that one and the champion.
    divided = MODE in registry.state(spec.name).tags
    if not (divided or ended or version.aliases & {CHAMPION, PREVIOUS}):
        # Before the alias, which all replicas follow: the version waits for its rollout.
        registry.load_first(spec.name, FirstLoad(version=version.version))
        registry.set_alias(spec.name, CHALLENGER, version.version)
    forced = ", by force" if inputs.force and not inputs.verdict.promote else ""
    log.info(
        "%s version %d is %s of run %s%s", spec.name, version.version, challenger.estimator, version.run_id, forced
    )
    return RegisterResult(
        version=version.version,
        digest=version.digest,
        ask=bool(why) and not ended,
        # Also when a request is open, and by now the spec says that nobody is asked.
        roll_out=not (why or ended),
        judged_against=judged_against,
        superseded=[AskedRun(version=old, attempt=known.attempt(old)) for old in known.superseded_by(version.version)],
    )


def _approvals(
    version: ModelVersion,
    inputs: RegisterInputs,
    why: list[str],
    judged: JudgedAgainst | None,
    spec: ModelSpec,
    settings: StateSettings,
) -> Approvals:
    """Write the request for an approval to the ledger, if a person must decide, and the end of those of older versions.
    Returns what the ledger knows then."""
    number, ledger = version.version, Ledger(settings.ledger)
    if why:
        request = ApprovalRequest(
            version=number,
            digest=version.digest,
            run=inputs.run,
            requested_by=inputs.requested_by,
            reason=inputs.reason,
            why=why,
            **inputs.verdict.model_dump(include={"promote", "reasons", "primary", "challenger", "champion"}),
            judged_against=judged,
            mlflow_run=version.run_id,
            until=datetime.now(UTC) + timedelta(hours=spec.approval.timeout_hours),
        )
        ledger.append(APPROVAL, spec.name, request.model_dump(mode="json"), request_key(number))
        log.info("Version %d waits for a person: %s", number, "; ".join(why))
    for old in approvals(ledger, spec.name).waiting():
        if old < number:
            newer = f"version {number} was registered before anybody had decided"
            end(Ended(version=old, outcome="superseded", why=newer, superseded_by=number), spec, settings)
    return approvals(ledger, spec.name)


def _highest_known(spec: ModelSpec, moves: list[dict[str, Any]], settings: StateSettings) -> int:
    """The highest version that the `moves` of the ledger, or the predictions, name; 0 when they name none.

    A registry that was restored from an older copy may lack it. Its number must not go to another artifact: monitoring
    and audit would confuse the two.
    """
    logged = newest_model_version(Lake(settings.lake, spec.source.name, spec.name))
    return max([logged, *(int(body["version"]) for body in moves)])


def _description(inputs: RegisterInputs, metadata: ArtifactMetadata, ask: list[str]) -> str:
    """What a person reads on the page of the version in MLflow. `ask`: why a person must decide."""
    verdict = "Promoted by its verdict" if inputs.verdict.promote else "Registered by force against its verdict"
    if ask:
        verdict = f"A person decides whether it serves, because {'; '.join(ask)}. The verdict"
    trained = f"{metadata.estimator}, trained as of {metadata.as_of}. Reason: {inputs.reason or 'none given'}."
    where = f"Evidence: {evidence_page.FOLDER}/{evidence_page.PAGE} among the artifacts of the run."
    head, end = f"{trained}\n\n{verdict}:\n", f"\n\n{where}"
    head = head[: DESCRIPTION_LENGTH // 2]
    return head + _listed(inputs.verdict.reasons, DESCRIPTION_LENGTH - len(head) - len(end)) + end


def _listed(reasons: list[str], length: int) -> str:
    """As many of the reasons as fit into `length` characters, failed ones first if they do not all fit."""
    lines = [f"- {reason}" for reason in reasons]
    if len("\n".join(lines)) <= length:
        return "\n".join(lines)
    more, kept = "- {} more are on the page", list[str]()
    for line in sorted(lines, key=lambda line: not line.startswith("- FAILED")):
        if len("\n".join([*kept, line, more.format(len(lines))])) > length:
            break
        kept.append(line)
    return "\n".join([*kept, more.format(len(lines) - len(kept))])


def _model_description(spec: ModelSpec) -> str:
    """What a person reads on the page of the model in MLflow."""
    said = f"{spec.title}. {spec.description}".strip()
    return f"{said}\n\nOwner: {spec.owner}. Learns {spec.label} from {spec.source.title} ({spec.task.kind})."


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
