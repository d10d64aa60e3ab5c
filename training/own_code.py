"""Our own modules in the step server, which forks steps that have them loaded, as long as no file of them changes."""

import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

#: Each file → its modification time in nanoseconds, and its size.
Stamps = dict[Path, tuple[int, int]]


class OwnCode:
    """The modules of the package `name`, but for those that run as programs.

    They are unloaded when a file of them was edited, added or deleted, and not loaded again: a module that is loaded a
    second time may be half the old one. From then on each step loads them itself, so that an edited step is used from
    its next run.
    """

    def __init__(self, name: str, programs: frozenset[str] = frozenset()) -> None:
        self._name = name
        self._programs = programs
        #: None: nothing is loaded.
        self._loaded: Stamps | None = None

    def load(self) -> None:
        """Import all modules. One that cannot be imported is left to the step that needs it, which says why."""
        folders = import_module(self._name).__path__
        # Before they are imported: a file that changes meanwhile counts as changed.
        self._loaded = self._stamps()
        # A list, because a package is imported to see what is in it.
        for name in [module.name for module in walk_packages(folders, f"{self._name}.", onerror=lambda name: None)]:
            if name not in self._programs and not name.endswith(".__main__"):
                try:
                    import_module(name)
                except Exception as error:
                    print(f"{name} is left to the steps that need it: {error!r}", flush=True)

    def unload(self) -> None:
        self._loaded = None
        package = import_module(self._name)
        for name in [name for name in sys.modules if name.startswith(f"{self._name}.")]:
            del sys.modules[name]
            # `from package import module` takes the attribute, if there is one.
            vars(package).pop(name.removeprefix(f"{self._name}."), None)

    def unload_if_changed(self) -> None:
        if self._loaded is None:
            return
        changed = {file for file, _ in self._loaded.items() ^ self._stamps().items()}
        if changed:
            print(f"{min(changed)} has changed: from now on each step loads our code itself", flush=True)
            self.unload()

    def _stamps(self) -> Stamps:
        found = Stamps()
        for root in import_module(self._name).__path__:
            for folder, _, names in os.walk(root):
                for file in [Path(folder, name) for name in names if name.endswith(".py")]:
                    with suppress(FileNotFoundError):
                        seen = file.stat()
                        found[file] = (seen.st_mtime_ns, seen.st_size)
        return found
