"""Score the candidates and the champion on the same holdout rows and reach a verdict."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from training import atomic, storage
from training.adapters.datasets import Dataset, Rows
from training.adapters.lake import Lake
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import ModelVersion, Registry, Runs
from training.challenger import Challenger, examine
from training.contract.errors import DataContractError, InputError
from training.contract.messages import Candidate, EvaluateInputs, EvaluateResult, Metrics, Verdict
from training.contract.model_spec import load_model_spec
from training.contract.names import CandidateName
from training.domain.approval import reasons_to_ask
from training.domain.evaluation_set import EvaluationSet
from training.domain.gates.report import group_tables
from training.domain.gates.scored_model import ScoredModel
from training.domain.identity import verdict_id
from training.domain.metrics import paired_differences
from training.domain.task_kind import LabelledRows, TaskKind, served_task, task_of
from training.domain.verdict import Champion, Reference, Rules, judge
from training.judged_groups import HoldoutColumns, judge_groups
from training.settings import StateSettings
from training.snapshots import champion_version
from training.workspace import served_artifact, share, shared_uri

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class _Holdout:
    """The rows that count (`keep` of `rows`), what came true of them, and the task that they are judged by."""

    rows: Rows
    keep: np.ndarray
    truth: EvaluationSet
    task: TaskKind

    @classmethod
    def of(cls, rows: Rows, task: TaskKind) -> "_Holdout":
        keep, entities = rows.evaluated, rows.entities
        counted = None if entities is None else entities[keep]
        truth = task.evaluation_set(rows.labels[keep], counted, rows.days[keep], rows.times[keep])
        return cls(rows, keep, truth, task)

    def score(self, model: OnnxModel) -> ScoredModel:
        """Scored with the model's own features, found by name. Raises DataContractError for a model of another kind."""
        model.metadata.check_kind(self.task.spec.task.kind)
        served = served_task(model.metadata.task)
        scored = self.task.scored(self.truth, model.score(self.features(model)), served)
        return ScoredModel(self.task, scored, served)

    def features(self, model: OnnxModel) -> np.ndarray:
        """Of the rows that count, as the model gets them."""
        return self.rows.features(model.metadata.columns)[self.keep]

    def reference(self, dataset: Dataset) -> Reference:
        """The naive prediction, made of the training labels."""
        columns = self.task.spec.task.reference_columns
        train = dataset.train_labels(columns)
        known = LabelledRows(self.task.truth(train.labels), train.times, _columns(train, columns))
        counted = LabelledRows(self.truth.labels, self.rows.times[self.keep], _columns(self.rows, columns, self.keep))
        described, scores, served = self.task.reference(known, counted)
        return Reference(described, self.task.scored(self.truth, scores, served).measure())


def _columns(rows: Rows, names: Sequence[str], keep: np.ndarray | slice = slice(None)) -> dict[str, np.ndarray]:
    return {name: rows.column(name).to_numpy()[keep] for name in names}


def run(inputs: EvaluateInputs, settings: StateSettings) -> EvaluateResult:
    """The best candidate in the primary metric is the challenger; the verdict on it goes to
    `<work>/<model>/verdicts/<id>/` (report.json, report.md) and to its MLflow run. The more candidates were asked for,
    the surer the lead over the champion must be (domain/verdict.py); those that dropped out are named and count too.

    A champion that cannot be scored on these rows (it needs a feature that they lack, its artifact is broken) is a
    gate that fails: only a person may then replace it, by force. Raises InputError when all have dropped out,
    DataContractError when a candidate cannot be scored, TransientError when MLflow does not answer.
    """
    for estimator, why in inputs.dropped_out.items():
        log.warning("%s dropped out: %s", estimator, why)
    if not inputs.candidates:
        reasons = "; ".join(f"{name}: {why}" for name, why in inputs.dropped_out.items())
        problem = f"No estimator gave a candidate for a verdict. {reasons}".strip()
        raise InputError(problem, hint="Fix the cause and clear the train tasks; their logs say more.")
    spec = load_model_spec(inputs.model, settings.models_dir, settings.feature_repo)
    serving = inputs.snapshot.champion_version if inputs.snapshot else champion_version(spec, settings)
    task, dataset = task_of(spec), Dataset(inputs.dataset_uri, spec)
    holdout = _Holdout.of(dataset.holdout(), task)
    counted, rows = int(holdout.keep.sum()), len(holdout.keep)
    log.info("Holdout of %s: %d of %d rows count", inputs.dataset_uri, counted, rows)
    if counted < rows:
        log.info("evaluation.exclude_known_entities leaves out %d", rows - counted)
    rankings = [(candidate, holdout.score(_load(candidate, settings))) for candidate in inputs.candidates]
    metrics: dict[CandidateName, Metrics] = {each.name: ranking.scored.measure() for each, ranking in rankings}
    for name, values in metrics.items():
        log.info("%s: %s", name, values)
    primary = spec.evaluation.primary
    sign = task.rules[primary].sign
    challenger, ranking = max(
        rankings, key=lambda pair: np.nan_to_num(sign * pair[1].scored.value(primary), nan=-np.inf)
    )
    reference = holdout.reference(dataset)
    log.info("%s: %s", reference.described, reference.metrics)

    registered = Registry(settings.tracking_uri).get(spec.name, serving) if serving is not None else None
    champion, theirs = None, None
    if registered is not None:
        champion, theirs = _champion(registered, challenger, ranking, holdout, inputs, settings)
    candidates, verdict_of = len(rankings) + len(inputs.dropped_out), verdict_id(spec, inputs, serving)
    model, showing = _load(challenger, settings), metrics[challenger.name]
    looked_at = Challenger(challenger, model, holdout.features(model), holdout.truth, showing, task, dataset, inputs)
    examined = examine(looked_at, champion, verdict_of, settings)
    columns = HoldoutColumns(dataset, holdout.rows, holdout.keep, Lake(settings.lake, spec.source.name), spec)
    groups = judge_groups(looked_at, columns, ranking, theirs)
    gates = [*groups.gates, *examined.gates]
    verdict = judge(Rules.of(task), showing, reference, champion, candidates, gates)
    digest, told = registered.digest if registered else None, [*_unusual(dataset), *verdict.reasons]
    evidence = {**groups.evidence, **examined.evidence}
    verdict = verdict.model_copy(update={"champion_digest": digest, "reasons": told, **evidence})
    for reason in verdict.reasons:
        log.info("%s", reason)
    log.info("Verdict on %s: %s", challenger.name, "promote" if verdict.promote else "keep the champion")
    ask = reasons_to_ask(spec.approval, verdict, task.rules[primary], first=serving is None)
    if ask:
        log.info("A person decides about %s: %s", challenger.name, "; ".join(ask))

    folder = settings.scratch / spec.name / "verdicts" / verdict_of
    uri = shared_uri(settings, folder)
    result = EvaluateResult(
        challenger=challenger,
        champion_version=serving,
        verdict=verdict,
        metrics=metrics,
        dropped_out=inputs.dropped_out,
        ask=ask,
        scored_rows=counted,
        report_uri=storage.join(uri, "report.json"),
    )
    _write_report(folder, result)
    share(settings, folder)
    runs = Runs(settings.tracking_uri, spec.name, str(settings.home / "mlflow"))
    runs.log_files(challenger.run_id, folder, "verdict")
    if settings.may_serve:
        from training.adapters.plots import draw  # A backtest, which evaluates often, needs no matplotlib for it.

        with TemporaryDirectory() as plots:
            draw(Path(plots), groups.charts)
            runs.log_files(challenger.run_id, Path(plots), "plots")
    runs.tag(challenger.run_id, {"verdict": "promote" if verdict.promote else "keep", "report": result.report_uri})
    return result


def _unusual(dataset: Dataset) -> list[str]:
    """What a reader of the verdict must know about its holdout."""
    manifest = dataset.manifest
    if manifest.change is None:
        return []
    holdout, gap = manifest.holdout.days, (manifest.holdout.days.start - manifest.train.days.end).days
    return [
        f"noted: because of a change on {manifest.change} the holdout has {len(holdout)} days ({holdout}), and the gap "
        f"before it {gap}. Its events lie nearer to the training rows than those in service will (ADR 0003)"
    ]


def _load(candidate: Candidate, settings: StateSettings) -> OnnxModel:
    model = OnnxModel.load(candidate.artifact_uri, maximum_mib=settings.artifact_maximum_mib)
    if model.metadata.digest != candidate.digest:
        problem = f"The artifact in {candidate.artifact_uri} is {model.metadata.digest}, not {candidate.digest}"
        raise DataContractError(problem, hint="Run the train step of this candidate again.")
    return model


def _champion(
    registered: ModelVersion,
    challenger: Candidate,
    ranking: ScoredModel,
    holdout: _Holdout,
    inputs: EvaluateInputs,
    settings: StateSettings,
) -> tuple[Champion, ScoredModel | None]:
    """The champion's showing on the same rows, and the challenger's lead over it on bootstrap samples; and its scores,
    when the two can be compared."""
    if registered.digest == challenger.digest:
        problem = "the challenger is this very model"
        return Champion(registered.version, ranking.scored.measure(), problem=problem), None
    try:
        model = OnnxModel.load(served_artifact(settings, registered), maximum_mib=settings.artifact_maximum_mib)
        theirs = holdout.score(model)
    except DataContractError as error:
        return Champion(registered.version, problem=f"it cannot be scored on this holdout. {error.message}"), None
    measured, rules = theirs.scored.measure(), holdout.task.evaluation
    log.info("Champion version %d (%s): %s", registered.version, model.metadata.estimator, measured)
    samples = rules.bootstrap_samples
    differences = paired_differences(ranking.scored, theirs.scored, rules.primary, samples, inputs.seed)
    return Champion(registered.version, measured, differences, holdout.truth.clusters.described), theirs


def _write_report(folder: Path, result: EvaluateResult) -> None:
    for name, text in (("report.json", result.model_dump_json(indent=2)), ("report.md", _markdown(result))):
        atomic.write(folder / name, text.encode())


def _markdown(result: EvaluateResult) -> str:
    verdict: Verdict = result.verdict
    rows: list[tuple[str, Metrics]] = [(name, values) for name, values in result.metrics.items()]
    if verdict.champion is not None:
        rows.append((f"champion, version {result.champion_version}", verdict.champion))
    rows.append(("naive reference", verdict.reference))
    names = list(verdict.challenger)
    lines = [
        f"# Verdict: {'promote' if verdict.promote else 'keep the champion'}",
        "",
        f"Challenger: {result.challenger.name}, run {result.challenger.run_id}.",
        f"Measured on {result.scored_rows} holdout rows.",
        "",
        f"| model | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
        *(f"| {name} | {' | '.join(_cell(values, metric) for metric in names)} |" for name, values in rows),
        "",
        *(f"- {reason}" for reason in verdict.reasons),
    ]
    for title, said, head, cells in group_tables(verdict):
        lines += ["", f"## {title}", "", said, "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        lines += [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in cells]
    if result.dropped_out:
        lines += ["", "Dropped out:", ""]
        lines += [f"- {name}: {' '.join(why.split())}" for name, why in result.dropped_out.items()]
    return "\n".join(lines) + "\n"


def _cell(values: Metrics, metric: str) -> str:
    return f"{values[metric]:.4f}" if metric in values else "–"
