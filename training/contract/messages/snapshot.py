"""What one run reads: the same data and the same champion in every step of it, whatever lands meanwhile."""

from datetime import date
from typing import Any

from pydantic import model_validator

from training.contract.base import Frozen, TableVersions
from training.contract.messages.inputs import ModelInputs


class Snapshot(Frozen):
    """Resolved once, by the first step of a run, and passed on to the others."""

    as_of: date | None = None
    """The knowledge horizon: what happened or was reported at or after this midnight (UTC) is not used. None: there are
    no events yet."""
    table_versions: TableVersions = {}
    """Of the tables that existed then."""
    champion_version: int | None = None
    """None: there was no champion, or there were no events."""


class SnapshotInputs(ModelInputs):
    """Inputs of a step that reads the snapshot of its run."""

    snapshot: Snapshot | None = None
    """None, for a step that is run by hand: resolved here, at the beginning, and named in the result."""
    as_of: date | None = None
    """The knowledge horizon of a snapshot that is resolved here. None: the day after the newest events."""

    @model_validator(mode="after")
    def _one_horizon(self) -> "SnapshotInputs":
        if self.snapshot is not None and self.as_of is not None:
            raise ValueError("snapshot has its own as_of: leave out as_of, or the snapshot")
        return self


class OfSnapshot(Frozen):
    """The result of a step that reads a snapshot."""

    snapshot: Snapshot = Snapshot()

    @model_validator(mode="before")
    @classmethod
    def _from_version_0_1(cls, fields: Any) -> Any:
        """Results written by Perennial 0.1 name the horizon, the champion and the tables themselves."""
        if not isinstance(fields, dict) or "snapshot" in fields:
            return fields
        rest = {name: value for name, value in fields.items() if name not in {*Snapshot.model_fields, "history_days"}}
        return {**rest, "snapshot": {name: fields[name] for name in Snapshot.model_fields if name in fields}}

    @property
    def as_of(self) -> date | None:
        return self.snapshot.as_of

    @property
    def champion_version(self) -> int | None:
        return self.snapshot.champion_version

    @property
    def table_versions(self) -> TableVersions:
        return self.snapshot.table_versions
