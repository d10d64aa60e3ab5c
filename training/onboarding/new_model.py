"""Writes the spec of a new model, `training/models/<model>.yaml`, from its source and a sample of its data."""

import math
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from training import storage
from training.contract.columns import Column
from training.contract.errors import ConfigError, InputError
from training.contract.feeds import EVENTS
from training.contract.model_spec import ModelSpec
from training.contract.names import did_you_mean
from training.contract.problems import problems_of
from training.contract.source_spec import SourceSpec, load_source_spec
from training.contract.spec_sections import MonitoringSpec, TrainingSpec
from training.contract.tasks import BinaryTask, MulticlassTask, RegressionTask
from training.onboarding.label_figures import LabelFigures, label_figures
from training.onboarding.landable import landable
from training.onboarding.new_source import create, require_free
from training.onboarding.rules import CLASSES, is_normal
from training.onboarding.sample import Sample, read_sample
from training.onboarding.yaml_text import comments, line
from training.settings import StateSettings

TASKS = {"binary": BinaryTask, "multiclass": MulticlassTask, "regression": RegressionTask}
_LINEAR = {"binary": "logistic_regression", "multiclass": "logistic_regression", "regression": "linear_regression"}
#: The bootstrap draws whole entities from so many on.
_ENOUGH_ENTITIES = 30
_JSON = (bool, int, float, str, list, type(None))


@dataclass(frozen=True)
class ModelWishes:
    """What a person says about a new model. Empty: guess.

    `data` and `labels`: files like those of `make new-source`; without them, the files that have landed.
    """

    name: str
    source: str
    label: str = ""
    task: str = ""
    data: Path | None = None
    labels: Path | None = None
    positive: str = ""
    owner: str = ""


@dataclass(frozen=True)
class NewModel:
    """The file that was written. `figures`: None when there were no rows to look at.

    `example`: the newest event of the rows, as a prediction request has it, a day later: the online store has the
    features of the day after the newest event.
    """

    path: Path
    text: str
    task: str
    figures: LabelFigures | None
    example: dict[str, Any]


def new_model(wishes: ModelWishes, settings: StateSettings) -> NewModel:
    """Write the spec. Raises InputError when the label suits no task, or when there is a file of that name."""
    path = settings.models_dir / f"{wishes.name}.yaml"
    require_free("model", wishes.name, path)
    spec = load_source_spec(wishes.source, settings.feature_repo)
    label = _label(spec, wishes.label)
    column = spec.feeds[spec.label(label).feed].columns[label]
    only_positives = spec.label(label).unlabelled_after_delay == "negative"
    task, why = choose_task(label, column, wishes.task, only_positives)
    feeds = _rows(wishes, spec, label, settings)
    figures = label_figures(spec, label, feeds, CLASSES) if feeds else None
    if task != "regression" and not only_positives and figures and len(figures.counts) == 1:
        what = f"The label {label} is {next(iter(figures.counts))!r} in all {figures.rows:,} rows that have one"
        raise InputError(f"{what}, so nothing can be learned", "Give rows with other values, or name another LABEL.")
    text = "\n".join(_lines(wishes, spec, label, column, task, why, figures)) + "\n"
    fields = {**yaml.safe_load(text), "source": spec}
    try:
        ModelSpec.model_validate(fields)
    except ValidationError as error:
        listed = "; ".join(map(str, problems_of(error, str(path), ModelSpec, fields)))
        raise ConfigError(f"The source {spec.name} needs a model written by hand: {listed}", "") from error
    create(path, text)
    return NewModel(path, text, task, figures, _example(spec, feeds[EVENTS]) if feeds else {})


def _label(spec: SourceSpec, wanted: str) -> str:
    names = list(spec.labels)
    found = [name for name in names if name.lower() == wanted.lower()] if wanted else names
    if len(found) != 1:
        what = f"{spec.name} has no label {wanted!r}" if wanted else f"{spec.name} has {len(names)} labels"
        raise InputError(what, f"{did_you_mean(wanted, names)}Write LABEL=<one of {', '.join(names)}>.")
    return found[0]


def choose_task(label: str, column: Column, wanted: str, only_positives: bool) -> tuple[str, str]:
    """The kind of task for a label with the rules `column`, and why it was chosen; empty when a person named it.

    Raises InputError when `wanted` is not a kind, or when the label does not suit it.
    """
    if wanted and wanted not in TASKS:
        hint = f"{did_you_mean(wanted, TASKS)}Write TASK=<one of {', '.join(TASKS)}>, or leave it out."
        raise InputError(f"{wanted!r} is not a task", hint)
    task, why = (wanted, "") if wanted else _guessed_task(column)
    section = TASKS[task](kind=task)
    if mistakes := list(section.label_mistakes(column, only_positives)):
        field, what, fix = mistakes[0]
        if task == "binary" and column.kind == "string":
            fix += " `make new-source … POSITIVE=<text>` declares a text label of two values so."
        raise InputError(f"The label {label} does not suit the task {task}: its {field} {what}", fix)
    return task, why


def _guessed_task(column: Column) -> tuple[str, str]:
    if column.kind == "bool" or set(column.values or ()) in ({0, 1}, {1}):
        return "binary", "the label is 0 or 1" if column.kind == "int" else "the label is true or false"
    if column.kind == "string":
        return "multiclass", "the label is a text"
    if column.values is not None:
        return "multiclass", f"the label has {len(column.values)} values. For amounts, write TASK=regression"
    return "regression", "the label is a number"


def _example(spec: SourceSpec, events: pa.Table) -> dict[str, Any]:
    last = events.num_rows - 1
    newest = {name: _written(events[name][last]) for name in spec.request_columns}
    time = spec.events.time_column
    return {**newest, time: (events[time][last].as_py() + timedelta(days=1)).isoformat()}


def _written(value: pa.Scalar) -> Any:
    """A value as JSON has it: a time, a date or a decimal is text. None for one that Python cannot hold."""
    try:
        found = value.as_py()
    except (OverflowError, ValueError):
        return None
    if isinstance(found, date):
        return found.isoformat()
    return found if isinstance(found, _JSON) else str(found)


def _rows(wishes: ModelWishes, spec: SourceSpec, label: str, settings: StateSettings) -> dict[str, pa.Table]:
    """Feed → its rows, of the feeds that the label needs; empty when none were given and none have landed."""
    needed = dict.fromkeys([EVENTS, spec.label(label).feed])
    given = {EVENTS: wishes.data} | ({feed: wishes.labels for feed in needed if feed != EVENTS})
    samples = {feed: read_sample(path) for feed, path in given.items() if path is not None}
    for feed in needed:
        if feed not in samples and (landed := _landed(settings, spec, feed)) is not None:
            samples[feed] = landed
    if missing := [feed for feed in needed if feed not in samples]:
        if samples and wishes.data:
            what = f"The label {label} is in the feed {missing[0]}, of which there are no rows"
            raise InputError(what, "Write LABELS=<file> as well, or land that feed first.")
        return {}
    return {feed: landable(sample, spec.feeds[feed], wishes.positive) for feed, sample in samples.items()}


def _landed(settings: StateSettings, spec: SourceSpec, feed: str) -> Sample | None:
    """The files of a feed that lie in a local landing folder."""
    if storage.is_remote(settings.landing):
        return None
    folder = storage.local(settings.landing) / spec.name / feed
    files = sorted(path for path in folder.glob("*.parquet") if path.is_file())
    if not files:
        return None
    tables = [pq.read_table(path, columns=list(spec.feeds[feed].columns)) for path in files]
    table = pa.concat_tables(tables, promote_options="permissive")
    return Sample(folder, table, {name: name for name in table.column_names})


def _lines(
    wishes: ModelWishes,
    spec: SourceSpec,
    label: str,
    column: Column,
    task: str,
    why: str,
    figures: LabelFigures | None,
) -> list[str]:
    title = wishes.name.replace("_", " ").capitalize()
    seen = (
        f"from {figures.rows:,} labels of the events of {figures.days}."
        if figures
        else "without data: no rows were given and none have landed, so windows and limits are mere defaults."
    )
    said = (
        f"Written by `make new-model` {seen} The comments say which figures the numbers come from. Correct what you"
        f" know better, then run `make check MODEL={wishes.name}`. docs/your-model.md explains the sections."
    )
    return [
        *comments(0, said),
        *line(0, "name", wishes.name),
        *line(0, "title", title),
        *line(0, "description", f"Predicts {label} of an event of {spec.name}."),
        *line(0, "owner", wishes.owner or "unknown", "who answers for the model"),
        "",
        *line(0, "source", spec.name),
        *line(0, "label", label),
        *line(0, "features", "all"),
        "",
        *_task(spec, task, why, figures),
        "",
        *_training(spec, label, task, figures),
        "",
        *_evaluation(spec, column, task, figures),
        "",
        *_monitoring(figures),
        "schedule:",
        *line(2, "train", "0 4 * * 1", "weekly, UTC; drift and worse predictions request a training as well"),
        *line(2, "monitor", "0 7 * * *"),
    ]


def _task(spec: SourceSpec, task: str, why: str, figures: LabelFigures | None) -> list[str]:
    found = ["task:", *line(2, "kind", task, why)]
    if task == "binary" and figures:
        share = min(max(figures.share(1), 0.001), 0.5)
        said = "the share of events with an alert: that of the positives among the labels"
        found += line(2, "decision", {"alert_rate": float(f"{share:.2g}")}, said)
    if task == "regression":
        found += line(2, "interval", {"coverage": 0.9}, "predictions come with an interval for 90 % of the labels")
        entity = next(iter(spec.entities.values()), None)
        by = {"by": [entity]} if entity else {}
        found += line(2, "reference", {"statistic": "mean", **by}, "the naive prediction that a first model must beat")
    return found


def _training(spec: SourceSpec, label: str, task: str, figures: LabelFigures | None) -> list[str]:
    found = ["training:"]
    window, holdout, said = _windows(spec.label(label).delay_days, figures)
    found += comments(2, said)
    found += [*line(2, "window_days", window), *line(2, "holdout_days", holdout)]
    if figures:
        found += _least_rows(task, window, figures)
    found.append("  estimators:")
    found += line(4, "hist_gradient_boosting", {})
    found += line(4, _LINEAR[task], {}, "docs/estimators.md lists the others")
    return found


def _windows(delay: int, figures: LabelFigures | None) -> tuple[int, int, str]:
    """`window_days`, `holdout_days` and a comment."""
    if figures is None:
        return 28, 7, f"A first model needs {35 + 2 * delay} days of events: both windows and twice the label's delay."
    known = (figures.as_of - figures.days.start).days
    holdout = 14 if known >= 84 else 7 if known >= 28 else max(1, known // 4)
    room = known - holdout - 2 * delay
    # Features of the first days have little history, and the data may begin later than the sample.
    window = max(1, min(room - min(28, room // 4), 180))
    said = (
        f"The sample has {known} days, of which window, holdout and twice the label's delay of {delay} days take"
        f" {window + holdout + 2 * delay}. A first model is trained when so many have landed."
    )
    if room < 1:
        said += " The sample is too short for that: land more history."
    return window, holdout, said


def _least_rows(task: str, window: int, figures: LabelFigures) -> list[str]:
    found, defaults = [], TrainingSpec.model_fields
    rows = figures.rows_a_day * window
    if rows < 2 * defaults["minimum_rows"].default:
        found += line(2, "minimum_rows", max(1, int(rows / 2)), f"the window of the sample has about {rows:,.0f}")
    if task != "regression" and figures.counts:
        rarest, count = min(figures.counts.items(), key=lambda item: item[1])
        least = count / len(figures.days) * window
        if least < 2 * defaults["minimum_class_rows"].default:
            found += line(2, "minimum_class_rows", max(1, int(least / 2)), f"of {rarest} it has about {least:,.0f}")
    return found


def _evaluation(spec: SourceSpec, column: Column, task: str, figures: LabelFigures | None) -> list[str]:
    limits, said = _limits(task, column, figures)
    found = ["evaluation:", *line(2, "limits", limits, said)]
    margins: dict[str, dict[str, Any]] = {
        "binary": {"roc_auc": 0.01},
        "multiclass": {"ovr_auc": 0.02},
        "regression": {"mae": {"relative": 0.02}},
    }
    found += line(2, "margins", margins[task], "what a later model may lose in these metrics")
    entity = _entity(spec, figures)
    if entity and figures:
        said = f"rows of one {entity} depend on each other: the bootstrap draws its {figures.entities[entity]:,} values"
        found += line(2, "entity", entity, said)
        if task == "binary":
            found += line(2, "exclude_known_entities", False, "true if a positive label ends the events of its entity")
    return found


def _limits(task: str, column: Column, figures: LabelFigures | None) -> tuple[dict[str, float], str]:
    """The worst values that may be promoted: about those of a naive prediction. The reference decides about more."""
    if task == "binary":
        share = figures.share(1) if figures else 0.0
        return {"average_precision": float(f"{min(share, 0.99):.2g}"), "roc_auc": 0.5}, "those of guessing"
    if task == "multiclass":
        classes = len(column.values or ()) or 10
        loss = figures.entropy if figures and figures.counts else math.log(classes)
        return {"log_loss": _rounded_up(1.1 * loss)}, "a tenth above that of predicting the shares of the classes"
    if figures and is_normal(figures.std):
        return {"rmse": _rounded_up(1.2 * figures.std)}, f"a fifth above the standard deviation, {figures.std:.4g}"
    return {"rmse": 1e9}, "no limit yet: write the largest error that you accept"


def _rounded_up(value: float) -> float:
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / step) * step:.3g}")


def _entity(spec: SourceSpec, figures: LabelFigures | None) -> str | None:
    if figures is None:
        return None
    known = {name: count for name, count in figures.entities.items() if count >= _ENOUGH_ENTITIES}
    return max(known, key=lambda name: known[name]) if known else None


def _monitoring(figures: LabelFigures | None) -> list[str]:
    """A window of a week may have too few rows to compare."""
    defaults = MonitoringSpec.model_fields
    least, week = defaults["minimum_rows"].default, defaults["window_days"].default
    if figures is None or figures.rows_a_day * week > 1.5 * least:
        return []
    window = min(28, math.ceil(1.5 * least / figures.rows_a_day / week) * week)
    rows = figures.rows_a_day * window
    found = ["monitoring:", *line(2, "window_days", window, f"has about {rows:,.0f} events")]
    if rows < 1.5 * least:
        said = "with so few, a column may seem to drift by chance: raise it when there are more"
        found += line(2, "minimum_rows", max(1, int(rows / 2)), said)
    return [*found, ""]
