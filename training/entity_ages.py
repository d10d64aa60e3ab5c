"""Read from the lake how long the entities of events are known."""

from typing import TYPE_CHECKING

import numpy as np

from training.adapters.lake import EVENTS, Lake
from training.adapters.tables import Events, covered
from training.contract.base import Days
from training.contract.model_spec import ModelSpec
from training.domain.entity_age import LOOK_BACK, ages
from training.domain.windows import event_days

if TYPE_CHECKING:
    import pandas as pd


def entity_ages(lake: Lake, spec: ModelSpec, version: int, rows: "pd.DataFrame", days: Days) -> dict[str, np.ndarray]:
    """Column of entities → the ages of the entities of `rows`, which are of `days`, as `ages` of the domain gives them.

    Only the events of LOOK_BACK before the days are read, and two columns of them. Raises InputError when the `version`
    of the events is gone.
    """
    known, events = covered(lake, spec.source, EVENTS, version), Events(lake, spec.source, version)
    if known is None:
        return {}
    read, row_days = Days(start=days.start - LOOK_BACK, end=days.end), event_days(rows[spec.source.events.time_column])
    return {
        name: ages(rows[name], row_days, events.entity_days(name, rows[name].dropna().unique(), read), known.start)
        for name in spec.entity_columns
        if name != spec.source.id_column
    }
