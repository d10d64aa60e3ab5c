"""Rules between the sections of a model spec and its source. A mistake is (field, rest of the sentence, what to do)."""

from collections.abc import Iterator

from training.contract.cron import cron_mistake
from training.contract.names import did_you_mean, more_than_once
from training.contract.problems import Mistake
from training.contract.scoring_spec import NEW_DATA
from training.contract.source_rules import entity_mistakes
from training.contract.spec_sections import SpecSections
from training.contract.tasks import Relative
from training.contract.verdict_rules import verdict_mistakes


def contradictions(spec: SpecSections) -> list[Mistake]:
    """All contradictions between the sections of the spec, and with its source."""
    if spec.label not in spec.source.labels:
        what = f"names {spec.label!r}, which is not one of the labels {sorted(spec.source.labels)} of the source"
        meant = did_you_mean(spec.label, spec.source.labels)
        return [("label", what, f"{meant}Name one of the labels of {spec.source.name}.")]
    label = list(_label(spec))
    return [
        *label,
        *_entities(spec),
        *_features(spec),
        *_training(spec),
        # With a label of another kind of task, the metrics are those of another kind, too.
        *([] if label else [*_evaluation(spec), *verdict_mistakes(spec), *_guards(spec)]),
        *_gates(spec),
        *_monitoring(spec),
        *_retraining(spec),
        *_schedule(spec),
    ]


def _label(spec: SpecSections) -> Iterator[Mistake]:
    label = spec.source.label(spec.label)
    column = spec.source.feeds[label.feed].columns[spec.label]
    only_positives = label.unlabelled_after_delay == "negative"
    for field, what, fix in spec.task.label_mistakes(column, only_positives):
        yield "label", f"names {spec.label!r}, whose {field} {what}", f"{fix} It is in feeds.{label.feed}."
    if only_positives and not spec.task.HAS_NEGATIVES:
        what = f"names {spec.label!r}, of which silence is negative, but the labels of a task of kind {spec.task.kind}"
        fix = f"Remove labels.{spec.label}.unlabelled_after_delay in the source, or learn another label."
        yield "label", f"{what} are not positive or negative", fix


def _entities(spec: SpecSections) -> Iterator[Mistake]:
    for field, name in (("evaluation.entity", spec.evaluation.entity), ("rollout.sticky_by", spec.rollout.sticky_by)):
        if name is not None:
            yield from entity_mistakes(field, name, spec.source.request_columns)


def _features(spec: SpecSections) -> Iterator[Mistake]:
    if not isinstance(spec.features, tuple):
        return
    if not spec.features:
        yield "features", "is empty", "List features, or write `features: all`."
    if repeated := sorted(more_than_once(spec.features)):
        yield "features", f"names {', '.join(repeated)} twice", "Name each feature once."


def _monitoring(spec: SpecSections) -> Iterator[Mistake]:
    columns = spec.source.request_columns
    vectors = [name for name, column in columns.items() if column.kind == "list" and column.parsed.length]
    for name in spec.monitoring.embeddings:
        if name not in vectors:
            what = f"names {name!r}, which is not a column of events with lists of floats of a fixed length"
            meant = did_you_mean(name, vectors) or f"Such columns are: {', '.join(vectors) or 'none'}. "
            yield "monitoring.embeddings", what, f"{meant}Declare the length in the source: type: list(float32, 128)."


def _training(spec: SpecSections) -> Iterator[Mistake]:
    training = spec.training
    if untrained := sorted(set(spec.resources.estimators) - set(training.estimators)):
        what = f"has {untrained}, which training.estimators does not have"
        yield "resources.estimators", what, "Remove them, or add them to training.estimators."
    yield from _windows(spec)
    yield from _search(spec)


def _windows(spec: SpecSections) -> Iterator[Mistake]:
    names = (f"{spec.training.window_days}d", *spec.training.windows)
    if repeated := sorted(more_than_once(names)):
        what = f"names {', '.join(repeated)} twice, or once and as window_days"
        yield "training.windows", what, "Name each window once: that of window_days is always there."


def _search(spec: SpecSections) -> Iterator[Mistake]:
    training, search = spec.training, spec.training.search
    if search is None:
        return
    if untrained := sorted(set(search.spaces) - set(training.estimators)):
        what = f"has {untrained}, which training.estimators does not have"
        yield "training.search.spaces", what, "Remove them, or add them to training.estimators."
    needed = search.days_needed(spec.source.label(spec.label).delay_days)
    if needed > training.window_days:
        what = f"needs {needed} days with the label delay, but training.window_days is {training.window_days}"
        yield "training.search", what, "Train on a longer window, or lower folds, fold_days or train_days."


def _evaluation(spec: SpecSections) -> Iterator[Mistake]:
    evaluation, rules = spec.evaluation, spec.task.rules
    if not evaluation.primary:
        yield "evaluation.primary", "is missing", f"Name a metric of the task {spec.task.kind}."
    elif evaluation.primary not in evaluation.limits:
        what = f"must have a limit for the primary metric {evaluation.primary!r}"
        yield "evaluation.limits", what, f"Add `{evaluation.primary}: <the worst value that may be promoted>`."
    if evaluation.primary in spec.task.NEVER_PRIMARY:
        what = f"is {evaluation.primary}, in which no model can be better than the naive reference"
        yield "evaluation.primary", what, "Name another metric, and limit this one."
    if evaluation.exclude_known_entities and not (spec.task.ENDS_ENTITIES and evaluation.entity):
        what = "is true, but only a binary task with an evaluation.entity has entities that are known as positive"
        yield "evaluation.exclude_known_entities", what, "Remove it."
    if rules is None:  # The kind itself checks its metrics when it is made.
        return
    named = {"primary": [evaluation.primary], "limits": evaluation.limits, "margins": evaluation.margins}
    for field, metrics in named.items():
        if unknown := sorted(set(metrics) - set(rules) - {""}):
            what = f"names {', '.join(unknown)}, which the task {spec.task.kind} does not have"
            yield f"evaluation.{field}", what, f"Its metrics are {', '.join(rules)}."
    for metric, limit in evaluation.limits.items():
        if metric in rules and not rules[metric].low <= limit <= rules[metric].high:
            what = f"is {limit:g}, but the metric is between {rules[metric].low:g} and {rules[metric].high:g}"
            yield f"evaluation.limits.{metric}", what, "Correct it."
    for metric, margin in evaluation.margins.items():
        if metric in rules and rules[metric].bounded and not isinstance(margin, Relative) and margin > 1:
            yield f"evaluation.margins.{metric}", f"is {margin:g}, but the metric is at most 1", "Correct it."
    columns = spec.source.request_columns
    if unknown := [name for name in spec.task.reference_columns if name not in columns]:
        what = f"names {', '.join(unknown)}, not one of the columns {sorted(columns)}"
        yield "task.reference.by", what, "Name one of the columns."


def _gates(spec: SpecSections) -> Iterator[Mistake]:
    evaluation = spec.evaluation
    if evaluation.cost.maximum_price is not None and spec.retraining.costs.cpu_hour is None:
        what = "limits what a training costs, but there is no price of a CPU"
        yield "evaluation.cost.maximum_price", what, "Set retraining.costs.cpu_hour, or remove the limit."
    if not isinstance(spec.features, tuple):
        return
    for name in evaluation.leakage.expected:
        if name not in spec.features:
            what = f"names {name!r}, which is not one of the model's features"
            yield "evaluation.leakage.expected", what, f"{did_you_mean(name, spec.features)}Name a feature."


def _guards(spec: SpecSections) -> Iterator[Mistake]:
    guards = spec.rollout.guards
    for name in ("minimum_alert_ratio", "maximum_alert_ratio"):
        if not spec.task.HAS_ALERTS and name in guards.model_fields_set and getattr(guards, name) is not None:
            what = f"limits alerts, but a task of kind {spec.task.kind} raises none"
            yield f"rollout.guards.{name}", what, "Remove it. `minimum_agreement` and `maximum_score_shift` apply."


def _retraining(spec: SpecSections) -> Iterator[Mistake]:
    costs, name = spec.retraining.costs, spec.retraining.policy
    for field in ("training", "loss_per_1000_predictions"):
        if name == "cost_aware" and getattr(costs, field) is None:
            what = "is missing, and the policy cost_aware compares the two costs"
            yield f"retraining.costs.{field}", what, "Set it, or choose another policy."
    if name == "fixed" and spec.schedule.train is None:
        what = "is fixed, which trains by schedule only, but schedule.train is null"
        yield "retraining.policy", what, "Set a schedule, or choose another policy."
    if spec.retraining.maximum_cost_per_30_days is not None and costs.training is None:
        what = "is missing, but retraining.maximum_cost_per_30_days limits what trainings cost"
        yield "retraining.costs.training", what, "Set the price of one training, or remove the limit."


def _schedule(spec: SpecSections) -> Iterator[Mistake]:
    schedules = {"schedule.train": spec.schedule.train, "schedule.monitor": spec.schedule.monitor}
    fix = 'Write five cron fields, such as "0 3 * * 1", or a preset such as @daily.'
    for place, expression in schedules.items():
        if expression is not None and (mistake := cron_mistake(expression)):
            yield place, f"is {expression!r}, which {mistake}", fix
    if spec.serving is None and spec.scoring is None:
        what = "is null, and there is no section scoring, so nothing would use the model"
        yield "serving", what, "Add `scoring: {when: new_data}`, or name a service."
    if spec.scoring and spec.scoring.when != NEW_DATA and (mistake := cron_mistake(spec.scoring.when)):
        yield "scoring.when", f"is {spec.scoring.when!r}, which {mistake}", f"Write `{NEW_DATA}`. {fix}"
