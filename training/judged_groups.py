"""The gates of a verdict that judge groups of rows: slices, calibration, fairness.

This module reads the columns that the spec names; training/domain/gates judges. What cannot be read fails the gate.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from training.adapters.datasets import Dataset, Rows
from training.adapters.lake import EVENTS, Lake
from training.adapters.tables import Events
from training.challenger import Challenger, Examined
from training.contract.base import Frozen
from training.contract.errors import DataContractError, InputError
from training.contract.messages.judged_groups import FairnessResult, SliceResults
from training.contract.model_spec import ModelSpec
from training.contract.names import GateName
from training.contract.verdict_spec import Grouping
from training.domain.arrow_types import as_exact_pandas
from training.domain.entity_age import age_feature, age_name
from training.domain.gates import Gate
from training.domain.gates.calibration import judge_calibration, reliability_chart
from training.domain.gates.fairness import judge_fairness
from training.domain.gates.found_slices import find_slices
from training.domain.gates.groups import Group, groups_of
from training.domain.gates.scored_model import ScoredModel
from training.domain.gates.slices import judge_slices

log = logging.getLogger("perennial")


@dataclass(frozen=True)
class HoldoutColumns:
    """The columns of the holdout rows that count: `keep` [n] of `rows`."""

    dataset: Dataset
    rows: Rows
    keep: np.ndarray
    lake: Lake
    spec: ModelSpec

    @cached_property
    def _events(self) -> pa.StructArray:
        return self.dataset.requests()["event"].combine_chunks()

    def values(self, name: str) -> pd.Series:
        """A column of the events, or a feature. Raises DataContractError when there is neither."""
        if name in self.spec.source.request_columns and name in [each.name for each in self._events.type]:
            column = pc.struct_field(self._events, name).filter(pa.array(self.keep))
            found: pd.Series = as_exact_pandas(pa.table({name: column}))[name]
            return found
        if name in self.rows.table.column_names:
            return self.rows.column(name)[self.keep].reset_index(drop=True)
        problem = f"the holdout has no column {name}"
        raise DataContractError(problem, hint="Name a column of the events, or a feature of the model.")

    def ages(self, entity: str) -> pd.Series:
        """Days from the first event of the entity in the lake to the event of each row; NaN without an entity.

        Raises DataContractError or InputError when the version of the events that the dataset was made of is gone.
        """
        entities, times = self.values(entity), pd.Series(self.rows.times[self.keep])
        version = self.dataset.manifest.table_versions[EVENTS]
        first = Events(self.lake, self.spec.source, version).first_seen(entity, entities.dropna().unique())
        seen = pd.to_datetime(entities.map(first), utc=True).dt.tz_localize(None)
        days: pd.Series = (times - seen) / pd.Timedelta(days=1)
        if unknown := int(days.isna().sum() - entities.isna().sum()):
            problem = f"{unknown} rows have a {entity} that has no event in version {version} of the events"
            raise DataContractError(problem, hint="Make the dataset again.")
        return days.clip(lower=0)


def judge_groups(
    about: Challenger, columns: HoldoutColumns, challenger: ScoredModel, champion: ScoredModel | None
) -> Examined:
    """Judge slices, calibration and fairness on the holdout. Further slices are found by the features of the
    challenger, which is `about`, and by the ages of the entities."""
    evaluation, seed = columns.spec.evaluation, about.inputs.seed
    slices, slice_gates = _slices(about, columns, challenger, champion)
    calibration, calibration_gates = judge_calibration(evaluation.calibration, challenger, champion, seed)
    fairness, fairness_gates = _fairness(columns, challenger, champion, seed)
    charts = []
    if calibration is not None:
        charts.append(reliability_chart(calibration, about.candidate.name, champion, evaluation.calibration.bins))
    evidence: dict[str, Frozen | None] = {"slices": slices, "calibration": calibration, "fairness": fairness}
    return Examined([*slice_gates, *calibration_gates, *fairness_gates], evidence, charts)


def _slices(
    about: Challenger, columns: HoldoutColumns, challenger: ScoredModel, champion: ScoredModel | None
) -> tuple[SliceResults | None, list[Gate]]:
    evaluation, seed = columns.spec.evaluation, about.inputs.seed
    spec = evaluation.slices.model_copy(update={"metric": evaluation.slices.metric or evaluation.primary})
    by_column, problems = _groups(columns, spec.columns, spec.ages, "slices")
    groups = [group for each in by_column.values() for group in each]
    if champion is not None and spec.find:
        ages = columns.rows.ages
        features = [*about.model.metadata.columns, *map(age_feature, ages)]
        values = np.column_stack([about.features, *(each[columns.keep] for each in ages.values())])
        groups += find_slices(challenger, champion, values, features, spec.minimum_rows, seed)
    if not groups:
        return None, problems
    samples, rule = evaluation.bootstrap_samples, challenger.task.rules[spec.metric]
    results, gates = judge_slices(spec, rule, challenger, champion, groups, samples, seed)
    return results, [*problems, *gates]


def _fairness(
    columns: HoldoutColumns, challenger: ScoredModel, champion: ScoredModel | None, seed: int
) -> tuple[FairnessResult | None, list[Gate]]:
    evaluation = columns.spec.evaluation
    by_column, problems = _groups(columns, evaluation.fairness.columns, {}, "fairness")
    if not by_column:
        return None, problems
    samples = evaluation.bootstrap_samples
    results, gates = judge_fairness(evaluation.fairness, challenger, champion, by_column, samples, seed)
    return results, [*problems, *gates]


def _groups(
    columns: HoldoutColumns, declared: Mapping[str, Grouping], ages: Mapping[str, Grouping], gate: GateName
) -> tuple[dict[str, list[Group]], list[Gate]]:
    """Column → its groups; a failed gate for each that cannot be read."""
    found: dict[str, list[Group]] = {}
    problems = []
    wanted: list[tuple[str, str, Callable[[str], pd.Series], Grouping]]
    wanted = [(name, name, columns.values, grouping) for name, grouping in declared.items()]
    wanted += [(age_name(name), name, columns.ages, grouping) for name, grouping in ages.items()]
    for label, name, read, grouping in wanted:
        try:
            found[label] = groups_of(label, read(name), grouping)
        except (DataContractError, InputError) as error:
            problems.append(Gate(gate, False, f"the groups by {label} cannot be judged: {error.message}"))
    return found, problems
