"""The protocol of engines that run the feature SQL of a model."""

from collections.abc import Mapping
from datetime import date
from typing import Any, Protocol

import pyarrow as pa


class SqlError(Exception):
    """The SQL does not compile or does not run. The message is the engine's."""


class FeatureEngine(Protocol):
    """A member of the registry FEATURE_ENGINES. Every method raises SqlError."""

    def parameters(self, sql: str) -> set[str]:
        """The names of the parameters of one SELECT, such as `start` for `$start`."""
        ...

    def clock_functions(self, sql: str) -> list[str]:
        """The functions of the current time or day that the SELECT calls, sorted."""
        ...

    def execute(self, sql: str, parameters: Mapping[str, date], relations: Mapping[str, Any]) -> pa.Table:
        """The result of the SELECT. Its days are UTC days, whatever the time zone of the machine.

        `relations`: Arrow datasets or tables by the names that the SQL uses.
        """
        ...
