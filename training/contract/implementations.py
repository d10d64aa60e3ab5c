"""Implementations that are looked up by name: estimators, drift tests, launchers, online stores, feature engines.

Each kind has one `Implementations` and one package. A new member is one module of that package, named after the member,
which registers itself:

    ESTIMATORS: Implementations[Estimator] = Implementations("estimator", "training.estimators")

    @ESTIMATORS.register("random_forest")     # in training/estimators/random_forest.py
    class RandomForest: ...

A package outside this repository joins with an entry point of the group `perennial.<kind>`, with spaces as underscores.
Finding a member imports that member's module and no other.
"""

from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from typing import Generic, TypeVar

from training.contract.errors import ConfigError

T = TypeVar("T")
M = TypeVar("M")


class Implementations(Generic[T]):
    """The members of one kind, by name.

    Members are the modules directly in `package`. Modules whose name begins with an underscore, and subpackages, are
    not members: code that members share belongs there. A member of the package hides an entry point of the same name.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._registered: dict[str, T] = {}

    @property
    def group(self) -> str:
        """The group of entry points that other packages join with."""
        return f"perennial.{self.kind.replace(' ', '_')}"

    def register(self, name: str) -> Callable[[M], M]:
        """A decorator that makes a class or function the member `name`. Raises ValueError when the name is taken."""

        def join(member: M) -> M:
            if name in self._registered:
                raise ValueError(f"Two {self.kind}s are registered as {name!r}")
            self._registered[name] = member  # type: ignore[assignment]
            return member

        return join

    def find(self, name: str) -> T:
        """The member `name`, imported when it is looked up first.

        Raises ConfigError when there is no such member, or when it cannot be imported.
        """
        if name not in self._registered:
            self._load(name)
        return self._registered[name]

    def names(self) -> list[str]:
        """The names of all members, sorted. No member is imported."""
        return sorted({*self._registered, *self.modules, *self._entry_points})

    def __contains__(self, name: str) -> bool:
        """Whether there is a member `name`. No member is imported."""
        return name in self._registered or name in self.modules or name in self._entry_points

    def _load(self, name: str) -> None:
        try:
            if name in self.modules:
                import_module(f"{self.package}.{name}")
            elif name in self._entry_points:
                self._registered[name] = self._entry_points[name].load()
            else:
                known = ", ".join(self.names()) or "none"
                raise ConfigError(f"There is no {self.kind} {name!r}", hint=f"Known {self.kind}s: {known}.")
        except (ImportError, AttributeError) as error:
            problem = f"The {self.kind} {name!r} cannot be imported: {error}"
            raise ConfigError(problem, hint="Install what it needs, or choose another.") from error
        if name not in self._registered:
            problem = f"The module {self.package}.{name} registers no {self.kind} {name!r}"
            raise ConfigError(problem, hint=f'Decorate the {self.kind} with `.register("{name}")`.')

    @cached_property
    def modules(self) -> frozenset[str]:
        """The names of the members that are modules of `package`."""
        path = import_module(self.package).__path__
        return frozenset(module.name for module in iter_modules(path) if not module.ispkg and module.name[0] != "_")

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        """Read only when a name is not in the package: this reads the metadata of everything that is installed."""
        return {point.name: point for point in entry_points(group=self.group)}
