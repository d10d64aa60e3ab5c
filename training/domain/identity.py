"""What identifies a dataset, a fit, a verdict, a request and the training code: an id is a hash of all that decides it.

DECIDES says for every part of the model spec which ids it enters. A part that decides nothing, such as the owner or the
schedule, may change and everything made before is found again. Every other recipe for an id stands in this module too.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import date
from enum import Enum
from typing import Any

from pydantic_core import to_jsonable_python

from training.contract.base import TableVersions
from training.contract.feeds import EVENTS, FeedSpec
from training.contract.model_spec import ModelSpec

#: Hex digits of an id: 64 bits.
LENGTH = 16


class Id(Enum):
    """The ids that parts of the spec enter."""

    DATASET = "dataset"
    FIT = "fit"
    VERDICT = "verdict"
    CODE = "code"


_NOTHING: frozenset[Id] = frozenset()
_DATASET, _CODE = frozenset({Id.DATASET}), frozenset({Id.CODE})

#: Part of the spec → the ids that it enters. A section stands here once as a whole or once by each of its fields. The
#: id of a fit and the id of a verdict include the id of the dataset, and so everything that decides the dataset.
DECIDES: Mapping[str, frozenset[Id]] = {
    "name": _DATASET,
    "title": _NOTHING,
    "description": _NOTHING,
    "owner": _NOTHING,
    "source.name": _DATASET,
    "source.title": _NOTHING,
    "source.description": _NOTHING,
    "source.owner": _NOTHING,
    # Of the feeds and labels of the source those that the model learns from. The other rules of a feed decide what
    # comes into the lake, which the table versions name.
    "source.feeds.columns.type": _DATASET,
    "source.feeds.columns.nullable": _DATASET,
    "source.feeds.columns.description": _NOTHING,
    "source.feeds.columns.unique": _NOTHING,
    "source.feeds.columns.minimum": _NOTHING,
    "source.feeds.columns.maximum": _NOTHING,
    # Of an event column that is a text feature they are the categories. Those of all others are left out
    # (`_without_rules`).
    "source.feeds.columns.values": _DATASET,
    "source.feeds.time_column": _DATASET,
    "source.feeds.id_column": _DATASET,
    "source.feeds.row_count": _NOTHING,
    "source.feeds.maximum_quarantined": _NOTHING,
    "source.feeds.slack_days": _NOTHING,
    "source.feeds.maximum_gap_days": _NOTHING,
    "source.labels": _DATASET | _CODE,
    "source.features.tables.entity": _DATASET | _CODE,
    # They decide the feature tables, which the table versions name.
    "source.features.tables.history_days": _CODE,
    "source.features.tables.every": _CODE,
    # The digest of the definitions has their SQL, ttl and defaults.
    "source.features.tables.ttl_days": _NOTHING,
    "source.features.tables.windows": _NOTHING,
    "source.features.tables.label": _NOTHING,
    "source.features.tables.aggregations": _NOTHING,
    "source.features.event_columns": _DATASET | _CODE,
    "source.resources": _NOTHING,
    "source.retention": _NOTHING,
    "label": _DATASET | _CODE,
    "features": _DATASET | _CODE,
    # It decides which labels suffice, and columns of the dataset.
    "task": _DATASET | {Id.FIT, Id.VERDICT},
    # The dataset step may be told another window and another seed: `dataset_id` takes those that are used.
    "training.window_days": _CODE,
    "training.seed": _CODE,
    "training.windows": _DATASET | _CODE,
    # It decides a dataset after a change only: `dataset_id` takes what is used of it.
    "training.after_change": _CODE,
    "training.holdout_days": _DATASET | _CODE,
    # A dataset that exists has passed these limits; with others it must be checked again.
    "training.calibration": frozenset({Id.FIT, Id.CODE}),
    "training.maximum_categories": _DATASET | _CODE,
    "training.minimum_labelled_share": _DATASET | _CODE,
    "training.minimum_rows": _DATASET | _CODE,
    "training.minimum_class_rows": _DATASET | _CODE,
    # A fit is identified by the parameters of its own estimator: `fit_id` takes them.
    "training.estimators": _CODE,
    # As is the search for its parameters.
    "training.search": _CODE,
    "evaluation.entity": _DATASET | {Id.VERDICT},
    "evaluation.exclude_known_entities": _DATASET | {Id.VERDICT},
    "evaluation.primary": frozenset({Id.FIT, Id.VERDICT}),
    "evaluation.k": frozenset({Id.FIT, Id.VERDICT}),
    "evaluation.limits": frozenset({Id.VERDICT}),
    "evaluation.minimum_skill": frozenset({Id.VERDICT}),
    "evaluation.margins": frozenset({Id.VERDICT}),
    "evaluation.bootstrap_samples": frozenset({Id.VERDICT}),
    "evaluation.confidence": frozenset({Id.VERDICT}),
    "evaluation.robustness": frozenset({Id.VERDICT}),
    "evaluation.cost": frozenset({Id.VERDICT}),
    "evaluation.latency": frozenset({Id.VERDICT}),
    "evaluation.stability": frozenset({Id.VERDICT}),
    "evaluation.leakage": frozenset({Id.VERDICT}),
    "evaluation.slices": frozenset({Id.VERDICT}),
    "evaluation.calibration": frozenset({Id.VERDICT}),
    "evaluation.fairness": frozenset({Id.VERDICT}),
    # The dataset holds the sample of its training rows that drift is measured against.
    "monitoring.maximum_rows": _DATASET,
    "monitoring.embeddings": _DATASET,
    "monitoring.window_days": _NOTHING,
    "monitoring.maximum_drifted_share": _NOTHING,
    "monitoring.test": _NOTHING,
    "monitoring.minimum_shift": _NOTHING,
    "monitoring.minimum_new_share": _NOTHING,
    "monitoring.seasonality": _NOTHING,
    "monitoring.minimum_rows": _NOTHING,
    "monitoring.maximum_performance_drop": _NOTHING,
    "monitoring.confidence": _NOTHING,
    "monitoring.minimum_class_rows": _NOTHING,
    "monitoring.maximum_unmeasured_looks": _NOTHING,
    # The prices are part of the evidence of a verdict.
    "retraining.costs": frozenset({Id.VERDICT}),
    "retraining.policy": _NOTHING,
    "retraining.persistence": _NOTHING,
    "retraining.cooldown_days": _NOTHING,
    "retraining.cooldown_broken_by": _NOTHING,
    "retraining.budget_per_30_days": _NOTHING,
    "retraining.maximum_cost_per_30_days": _NOTHING,
    "schedule": _NOTHING,
    "rollout": _NOTHING,
    "approval": _NOTHING,
    "resources": _NOTHING,
    "retention": _NOTHING,
    "serving": _NOTHING,
    "scoring": _NOTHING,
}


def canonical_json(value: Any) -> bytes:
    """The one JSON text of `value`: keys sorted, no spaces, UTF-8. Raises ValueError for NaN and infinity."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest(value: Any, length: int = LENGTH) -> str:
    """The first `length` hex digits (at most 64) of the SHA-256 of `value`.

    `value` is JSON, or holds what pydantic writes as JSON: models, dates.
    """
    return hashlib.sha256(canonical_json(to_jsonable_python(value))).hexdigest()[:length]


def dataset_id(
    spec: ModelSpec,
    as_of: date,
    table_versions: TableVersions,
    tables: Mapping[str, str | None],
    window_days: int,
    seed: int,
    definitions: str,
    change: date | None = None,
) -> str:
    """Of the dataset with this knowledge horizon, made of these tables. `definitions`: digest of the feature files.
    `change`: the day of the change after which it is made.

    `tables`: the id that each table got when it was created (Lake.identity). A table that was deleted and created again
    counts its versions from 0 again.
    """
    decides = [_deciding(spec, Id.DATASET), as_of, table_versions, tables, window_days, seed, definitions]
    return digest([*decides, change, spec.training.after_change] if change and spec.training.after_change else decides)


def fit_id(
    spec: ModelSpec,
    dataset: str,
    estimator: str,
    parameters: Mapping[str, Any],
    seed: int,
    code: str,
    libraries: Mapping[str, str],
    schema_version: int,
    window: str = "",
) -> str:
    """Of a fit of `estimator` on the window with the name `window` of the dataset with the id `dataset`.

    `code`: digest of the source that fits. It is not the commit: an edit that nobody committed must train again, a
    commit that changes a page of the documentation must not. `libraries`: the versions of those that fit and export.
    `schema_version`: of the artifact. Why a model is trained, where its dataset lies and how many processes fit it
    decides nothing.
    """
    spec_parts = _deciding(spec, Id.FIT)
    decides = [spec_parts, dataset, estimator, dict(parameters), seed, code, dict(libraries), schema_version]
    return digest([*decides, window] if window else decides)


def part_id(fit: str, part: int) -> str:
    """Of part number `part` of the search of the fit with the id `fit`."""
    return digest([fit, "part", part])


def verdict_id(spec: ModelSpec, inputs: Any, champion_version: int | None) -> str:
    """Of the verdict on `inputs` (those of the step `evaluate`) against the champion."""
    return digest([_deciding(spec, Id.VERDICT), inputs, champion_version])


def code_id(spec: ModelSpec, code: str, definitions: str) -> str:
    """Of the code that trains: `code` is the digest of the source that fits, `definitions` of the features' files."""
    return digest([_deciding(spec, Id.CODE), code, definitions])


def backtest_id(spec: ModelSpec, table_versions: TableVersions, tables: Mapping[str, str | None], code: str) -> str:
    """Of what backtests compute from these tables (see `dataset_id`): features, trainings, verdicts, values.

    It does not depend on the policies that are replayed, nor on settings of monitoring that decide only what monitors
    find. `code`: of training (`code_id`).
    """
    decides = spec.model_dump(mode="json", include={"source", "label", "features", "task", "training", "evaluation"})
    monitoring = [
        path.removeprefix("monitoring.") for path, ids in DECIDES.items() if ids and path.startswith("monitoring.")
    ]
    kept = {name: getattr(spec.monitoring, name) for name in monitoring}
    return digest([spec.name, decides, kept, table_versions, tables, code])


def request_id(model: str, trigger: str, day: date | None, what: Any) -> str:
    """Of a request to train: two requests with the same id ask for the same training. `what` is any JSON."""
    return f"{trigger}-{digest([model, trigger, str(day), what], 12)}"


def partition_number(content_sha256: str, feed: FeedSpec) -> int:
    """Of a delivered partition and the rules of its feed: new rules validate the same files again."""
    # Which column is the id is no rule for a row.
    return _number(f"{content_sha256} {feed.model_dump_json(exclude={'id_column'})}")


def definition_number(*parts: Any) -> int:
    """Of the definition of a feature table, from all `parts`, JSON values, that decide its rows."""
    return _number(json.dumps(parts))


def _number(text: str) -> int:
    """60 bits of the SHA-256 of `text`: a Delta table can store this number with a commit."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)


def _deciding(spec: ModelSpec, kind: Id) -> dict[str, Any]:
    """The parts of `spec` that enter ids of this kind, by their names in DECIDES."""
    source, feeds = spec.source, spec.feed_names
    learned = {
        "feeds": {
            name: _without_rules(feed, source.features.event_columns if name == EVENTS else ())
            for name, feed in source.feeds.items()
            if name in feeds
        },
        "labels": {spec.label: source.labels[spec.label]},
    }
    spec = spec.model_copy(update={"source": source.model_copy(update=learned)})
    return {part: _part(spec, part.split(".")) for part, ids in DECIDES.items() if kind in ids}


def _without_rules(feed: FeedSpec, features: Sequence[str]) -> FeedSpec:
    """The feed, with the allowed values of no column but the texts among `features`."""
    columns = {
        name: column if name in features and column.kind == "string" else column.model_copy(update={"values": None})
        for name, column in feed.columns.items()
    }
    return feed.model_copy(update={"columns": columns})


def _part(value: Any, path: list[str]) -> Any:
    """The value at `path`; of a mapping on the way: that of each of its members."""
    if not path:
        return value
    if isinstance(value, Mapping):
        return {key: _part(each, path) for key, each in value.items()}
    return _part(getattr(value, path[0]), path[1:])
