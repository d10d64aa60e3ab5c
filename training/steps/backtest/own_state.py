"""Where a backtest computes: a state of its own beside the live one, with the live lake, and an MLflow in a file.

What is computed there depends on data, code and spec, never on the period or the policies: another backtest over the
same data finds it again, and a killed one resumes.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from training.adapters.lake import Lake
from training.adapters.registry import CHAMPION, Registry
from training.adapters.tables import Labels
from training.code import training_code
from training.contract.base import TableVersions
from training.contract.errors import DataContractError
from training.contract.model_spec import ModelSpec
from training.domain.identity import backtest_id
from training.settings import StateSettings
from training.workspace import own_state


@dataclass(frozen=True)
class Place:
    """For worker processes: `settings` of the own state, and the versions of the tables that are read."""

    settings: StateSettings
    model: str
    versions: TableVersions
    horizon: date
    """The day after the newest label was reported."""

    @property
    def folder(self) -> Path:
        return self.settings.home


def make_place(spec: ModelSpec, settings: StateSettings) -> Place:
    """The place of a backtest on the newest versions of the tables. Raises DataContractError when one has no rows."""
    lake = Lake(settings.lake, spec.source.name, spec.name)
    wanted = [*spec.feed_names, *spec.source.entities]
    versions = lake.versions(*wanted)
    if missing := [table for table in wanted if table not in versions]:
        problem = f"The lake at {lake.uri('')} has no tables {missing}"
        raise DataContractError(problem, hint="Land events and labels, and wait until their data runs have finished.")
    newest = Labels(lake, spec, versions[spec.label_spec.feed]).newest_report()
    if newest is None:
        raise DataContractError(f"{lake.uri(spec.label_spec.feed)} is empty", hint="Land labels first.")
    identity = backtest_id(spec, versions, lake.identities(versions), training_code(settings, spec))
    folder = settings.scratch / spec.name / "backtests" / identity
    own = own_state(settings, folder)
    # MLflow makes its tables at the first connection, which two processes must not do at once.
    Registry(own.tracking_uri).by_alias(spec.name, CHAMPION)
    return Place(own, spec.name, versions, newest.date() + timedelta(days=1))
