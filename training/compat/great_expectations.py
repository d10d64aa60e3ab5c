"""Imports Great Expectations without what it imports beside it and no rule of ours uses: charts, statistics, clouds.

That is more than half of the time of its import and a third of its memory. altair and scipy.stats are stand-ins that
import the module when somebody asks it for something. The others are optional for Great Expectations or its
dependencies, and count as not installed while it is imported.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

#: Great Expectations needs them to be there. Only expectations about distributions, and its charts, use them.
_STAND_INS = ("altair", "scipy.stats")
#: Clouds and databases; rfc3987_syntax compiles a grammar for jsonschema.
_HIDDEN = ("azure", "boto3", "botocore", "google", "rfc3987_syntax", "sqlalchemy")


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def light_import() -> Iterator[None]:
    """In the block Great Expectations is imported without them. What was imported before is used as it is."""
    replaced: dict[str, ModuleType | None] = {name: _StandIn(name) for name in _STAND_INS}
    replaced |= dict.fromkeys(_HIDDEN)
    missing = {name: module for name, module in replaced.items() if name not in sys.modules}
    sys.modules.update(missing)  # type: ignore[arg-type]  # None: an import fails
    try:
        yield
    finally:
        for name in missing:
            sys.modules.pop(name, None)
