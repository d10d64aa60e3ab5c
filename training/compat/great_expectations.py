"""Imports Great Expectations without the modules that no rule of ours uses: charts, statistics, cloud clients.

That is more than half of the time of its import and a third of its memory. altair and scipy.stats are stand-ins that
import the module when something is read from it. The others are optional for Great Expectations or its dependencies,
and count as not installed while it is imported.

It also makes what Great Expectations asks of an expectation again and again only once: see `quick_configurations`.
"""

import functools
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

#: Great Expectations needs them to be there. Only expectations about distributions, and its charts, use them.
_STAND_INS = ("altair", "scipy.stats")
#: Clouds and databases.
_HIDDEN = ("azure", "boto3", "botocore", "google", "sqlalchemy")


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def light_import() -> Iterator[None]:
    """In the block Great Expectations is imported without them. Modules that were imported before are used
    unchanged."""
    replaced: dict[str, ModuleType | None] = {name: _StandIn(name) for name in _STAND_INS}
    replaced |= dict.fromkeys(_HIDDEN)
    missing = {name: module for name, module in replaced.items() if name not in sys.modules}
    sys.modules.update(missing)  # type: ignore[arg-type]  # None: an import fails
    try:
        yield
    finally:
        for name in missing:
            sys.modules.pop(name, None)


#: Of so many expectations `quick_configurations` keeps the fields, and so many ids of metrics.
_KEPT = 1000
#: The types of most arguments of a metric. Equal values of these types are the same in JSON.
_PLAIN = {str, bool, type(None)}


def quick_configurations() -> None:
    """Make the fields of an expectation a dict once, the name of its class snake case, and the arguments of a metric
    an id. A context in memory is not written as YAML.

    A validation asks 140 times for the configuration of each expectation, which took two fifths of the CPU of
    validating a small batch, and the ids a third of what was left. An expectation whose fields were set anew has a new
    dict. The YAML of a context went into a store in memory that nobody reads, four times, which was three fifths of
    what making a suite took. Call it after the import.
    """
    from great_expectations.core.id_dict import IDDict
    from great_expectations.data_context.data_context_variables import EphemeralDataContextVariables
    from great_expectations.expectations import expectation

    whole: Any = expectation.Expectation.dict
    if hasattr(whole, "__wrapped__"):  # Our own code was loaded again in the same process.
        return
    kept: dict[tuple[type, int], tuple[dict[str, Any], dict[str, Any]]] = {}

    @functools.wraps(whole)
    def quick(self: Any, **options: Any) -> dict[str, Any]:
        if options != {"exclude_defaults": True}:
            found: dict[str, Any] = whole(self, **options)
            return found
        key = type(self), id(self)  # Another expectation that gets this id has other fields, or the same dict.
        fields, made = kept.get(key, ({}, {}))
        if fields != self.__dict__:
            if len(kept) >= _KEPT:
                kept.clear()
            fields, made = dict(self.__dict__), whole(self, **options)
            kept[key] = fields, made
        return dict(made)

    expectation.Expectation.dict = quick  # type: ignore[method-assign]
    expectation.camel_to_snake = functools.cache(expectation.camel_to_snake)  # type: ignore[attr-defined]
    IDDict.to_id = _quick_ids(IDDict.to_id)  # type: ignore[method-assign]
    EphemeralDataContextVariables.save = lambda _: None  # type: ignore[method-assign,assignment]


def _quick_ids(to_id: Any) -> Any:
    """`IDDict.to_id` that makes the id of plain arguments once."""

    @functools.lru_cache(_KEPT)
    def of(kind: type, items: tuple[tuple[str, Any], ...]) -> Any:
        return to_id(kind(items))

    @functools.wraps(to_id)
    def quick(self: Any, *given: Any, **named: Any) -> Any:
        if given or named or not all(type(value) in _PLAIN for value in self.values()):
            return to_id(self, *given, **named)
        kind: Any = type(self)
        return of(kind, tuple(sorted(self.items())))

    return quick
