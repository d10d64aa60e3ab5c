"""Check the features that a model spec names against the Feast definitions of its source."""

from training.adapters.features.chosen import chosen_features
from training.adapters.features.definitions import load_definitions
from training.contract.errors import StepError
from training.contract.model_spec import ModelSpec
from training.contract.names import did_you_mean
from training.contract.problems import Problem
from training.contract.source_rules import TABLE_COLUMNS
from training.settings import StateSettings


def check_features(spec: ModelSpec, file: str, settings: StateSettings) -> list[Problem]:
    """The problems with the model's choice. A source without definitions is for the check of the source."""
    try:
        definitions = load_definitions(settings.feature_repo, spec.source)
    except StepError:
        return []
    try:
        names = chosen_features(definitions, spec, settings.feature_repo).names
    except StepError as error:
        return [Problem(file=file, place="features", what=error.message, fix=error.hint)]
    if not names:
        what, fix = "chooses no features", "Name features of the source, or define views that have some."
        return [Problem(file=file, place="features", what=what, fix=fix)]
    unexpected = [
        Problem(
            file=file,
            place="evaluation.leakage.expected",
            what=f"names {name!r}, which is not one of the model's features",
            fix=f"{did_you_mean(name, names)}Name a feature.",
        )
        for name in spec.evaluation.leakage.expected
        if name not in names
    ]
    # A dataset has these columns beside the features.
    source = spec.source
    of_events = [*source.request_columns]
    grouped = {
        f"evaluation.{section}.columns.{name}": name
        for section, columns in (("slices", spec.evaluation.slices), ("fairness", spec.evaluation.fairness))
        for name in columns.columns
    }
    unknown = [
        Problem(
            file=file,
            place=place,
            what="is neither a column of the events nor a feature of the model",
            fix=f"{did_you_mean(name, [*of_events, *names])}Columns of the events: {', '.join(of_events)}.",
        )
        for place, name in grouped.items()
        if name not in of_events and name not in names
    ]
    taken = {source.id_column, spec.label, source.events.time_column, spec.evaluation.entity, *source.entities.values()}
    return (
        unexpected
        + unknown
        + [
            Problem(
                file=file,
                place="features",
                what=f"has {name}, but a dataset already has another column of this name",
                fix="Rename the feature in the source.",
            )
            for name in names
            if name in taken | TABLE_COLUMNS and name not in source.features.event_columns
        ]
    )
