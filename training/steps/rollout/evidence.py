"""A rollout's other evidence, late labels and the skew audit, and the report that it leaves for people to read."""

import json
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from training.adapters.lake import PREDICTIONS, Lake
from training.adapters.ledger import Ledger
from training.adapters.logged_predictions import Predictions
from training.adapters.registry import Registry
from training.adapters.registry.watch import keep
from training.adapters.tables import Labels
from training.contract.artifact import METADATA_FILE, ArtifactMetadata
from training.contract.errors import StepError
from training.contract.model_spec import ModelSpec
from training.contract.predictions import ROUTED
from training.contract.signals import Signals
from training.domain.audit import AUDIT, Audit
from training.domain.frames import DAY, LABEL, LOGGED_OUTPUTS, ROLE, VERSION, are_finite, logged_outputs
from training.domain.guards import Finding, quality
from training.domain.rollout import Move, Stage
from training.domain.task_kind import Scored, served_task, task_of
from training.settings import StateSettings
from training.workspace import served_artifact, share

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("perennial")


class LateLabels:
    """The labels that have arrived for the requests of `stage`. They are read only every few minutes: that is slow."""

    def __init__(self, stage: Stage, move: Move | None, spec: ModelSpec, settings: StateSettings) -> None:
        self._stage, self._spec, self._lake = stage, spec, Lake(settings.lake, spec.source.name, spec.name)
        self._champion = move.champion if move else None
        self._last_read = time.monotonic()
        self._findings: list[Finding] = []
        self._settings, self._artifacts = settings, dict[int, ArtifactMetadata]()
        self.task = task_of(spec)

    def findings(self, final: bool) -> list[Finding]:
        """The quality guard's finding, if the spec has this guard and enough labels have arrived."""
        guards = self._spec.rollout.guards
        if guards.maximum_quality_drop is None or self._stage.spec.mode == "full":
            return []
        if final or time.monotonic() - self._last_read > 60 * guards.quality_minutes:
            self._last_read = time.monotonic()
            self._findings = self._paired()
        return self._findings

    def of(self, version: int | None) -> "pd.DataFrame":
        """The labelled requests that `version` answered, with the first answer of each; no pinned requests."""
        rows = self._labelled()
        return rows[(rows[VERSION] == version) & rows[ROLE].isin(ROUTED)]

    def _paired(self) -> list[Finding]:
        """Compare both versions on the labelled requests that both have scored."""
        from training.domain.metrics import paired_differences

        rows, spec = self._labelled(), self._spec
        identity, evaluation = spec.source.id_column, spec.evaluation
        new, old = (rows[rows[VERSION] == version] for version in (self._stage.version, self._champion))
        new = new[new[identity].isin(old[identity])].sort_values(identity)
        old = old[old[identity].isin(new[identity])].sort_values(identity)
        scored = [
            self.scored(version, rows_of) for version, rows_of in ((self._stage.version, new), (self._champion, old))
        ]
        version, champion = scored
        if version is None or champion is None:
            return []
        samples, seed = evaluation.bootstrap_samples, spec.training.seed
        differences = paired_differences(version, champion, evaluation.primary, samples, seed)
        clusters = version.truth.clusters
        leads = self.task.rules[evaluation.primary].sign * differences
        counts = self.task.counts(version.truth.labels)
        drawn = clusters.described if clusters.by_time else ""
        return [quality(leads, evaluation.primary, len(new), counts, spec.rollout.guards, drawn)]

    def scored(self, version: int | None, rows: "pd.DataFrame") -> Scored | None:
        """The labelled `rows` as `version` scored them. None when they are too few to measure."""
        from training.domain.evaluation_set import EvaluationSet

        spec, entity = self._spec, self._spec.evaluation.entity
        truth = self.task.truth(rows[LABEL].to_numpy())
        if version is None or self.task.lacks_to_measure(truth, spec.monitoring.minimum_class_rows):
            return None
        metadata = self._metadata(version)
        outputs = logged_outputs(rows[LOGGED_OUTPUTS], metadata.outputs)
        times, served = rows[spec.source.events.time_column], served_task(metadata.task)
        known = EvaluationSet.of(truth, None if entity is None else rows[entity], rows[DAY], times)
        return self.task.scored(known, served.scores(outputs), served)

    def _metadata(self, version: int) -> ArtifactMetadata:
        if version not in self._artifacts:
            registered = Registry(self._settings.tracking_uri).get(self._spec.name, version)
            content = (served_artifact(self._settings, registered) / METADATA_FILE).read_bytes()
            self._artifacts[version] = ArtifactMetadata.model_validate_json(content)
        return self._artifacts[version]

    def _labelled(self) -> "pd.DataFrame":
        """The predictions of both versions since the stage began, with the labels that are known now."""
        from training.domain.labels import labelled

        spec, identity = self._spec, self._spec.source.id_column
        versions = self._lake.versions(PREDICTIONS, *spec.feed_names)
        predictions = Predictions(self._lake, spec, versions.get(PREDICTIONS))
        columns = [identity, spec.source.events.time_column, *filter(None, [spec.evaluation.entity])]
        rows = predictions.scored_since(self._stage.began, [self._stage.version, self._champion], columns)
        rows = rows[are_finite(rows[LOGGED_OUTPUTS])]
        table = Labels(self._lake, spec, versions.get(spec.label_spec.feed))
        known = table.known_at(None, rows[identity])
        # The labels feed decides what is known now: a clock does not know which deliveries are late.
        return labelled(rows, known, spec, table.newest_report() or self._stage.began)


def comparison(stage: Stage, signals: Signals, labels: LateLabels, spec: ModelSpec) -> list[str]:
    """The final comparison of an A/B stage: alert rates, and the primary metric if enough labels have arrived."""
    from training.domain.experiment import alert_rates, qualities

    confidence, evaluation = spec.evaluation.confidence, spec.evaluation
    alerts = spec.task.HAS_ALERTS
    rates = alerts and alert_rates(signals.of(signals.champion), signals.of(signals.challenger), confidence)
    lines = [str(rates)] if rates else []
    versions = (signals.champion, signals.challenger)
    old, new = (labels.scored(version, labels.of(version)) for version in versions)
    if old is None or new is None:
        return [*lines, f"{evaluation.primary}: too few labels have arrived"]
    samples, seed = evaluation.bootstrap_samples, spec.training.seed
    return [*lines, str(qualities(old, new, evaluation.primary, confidence, samples, seed))]


def skew_problem(ledger: Ledger, spec: ModelSpec) -> str | None:
    """Why the latest skew audit forbids a rollout; None when it allows it, or the spec has no limit."""
    limit = spec.rollout.guards.maximum_skew
    if limit is None:
        return None
    audits = [Audit.model_validate(entry.body) for entry in ledger.entries(spec.name, AUDIT)]
    if not audits:
        return f"The spec allows a skew of at most {limit:.2%}, and no audit is in the ledger"
    audit = max(reversed(audits), key=lambda each: each.as_of)
    if audit.share <= limit:
        log.info("Skew as of %s: %s, at most %.2f%%", audit.as_of, audit, 100 * limit)
        return None
    return f"Skew as of {audit.as_of}: {audit}, at most {limit:.2%}"


def keep_report(model: str, stages: Sequence[Stage], move: Move, registry: Registry, settings: StateSettings) -> None:
    """Write `rollout.md` and `rollout.json` to `<work>/<model>/rollouts/<number>/` and to the version's MLflow run."""
    folder = settings.scratch / model / "rollouts" / str(move.number)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"move": move.model_dump(mode="json"), "stages": [stage.model_dump(mode="json") for stage in stages]}
    (folder / "rollout.json").write_text(json.dumps(content, indent=2))
    (folder / "rollout.md").write_text(_page(model, stages, move))
    try:
        share(settings, folder)
        keep(settings.tracking_uri, registry.get(model, move.version), folder, f"rollout/{move.number}")
    except StepError as error:  # The ledger has the same numbers.
        log.warning("The report of the rollout stays in %s, MLflow did not take it: %s", folder, error.message)


def _page(model: str, stages: Sequence[Stage], move: Move) -> str:
    outcome = f"failed: {move.failure}" if move.failure else move.phase
    lines = [f"# Rollout {move.number} of {model}: version {move.version}", "", f"{outcome}", ""]
    lines += [f"Champion before: {move.champion or 'none'}. Reason: {move.reason or 'none given'}.", ""]
    for stage in stages:
        lines += [f"## Stage {stage.id}: {stage.phase}", "", f"{stage.requests} requests since {stage.began}.", ""]
        lines += [f"- {line}" for line in (*stage.findings, *stage.comparison)] + [""]
    return "\n".join(lines)
