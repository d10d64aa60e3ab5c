"""Our own modules in the step server, which forks steps that have them loaded, as long as no file of them changes."""

import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

#: The modification time in nanoseconds and the size of a file; None: there is none.
Stamp = tuple[int, int] | None


class OwnCode:
    """The modules of the package `name`, but for those that run as programs.

    They are unloaded when one of their files has changed, and not loaded again: a module that is loaded a second time
    may be half the old one. From then on each step loads them itself, so that an edited step is used from its next run.
    """

    def __init__(self, name: str, programs: frozenset[str] = frozenset()) -> None:
        self._name = name
        self._programs = programs
        self._stamps: dict[Path, Stamp] = {}

    def load(self) -> None:
        """Import all modules. One that cannot be imported is left to the step that needs it, which tells the error."""
        folders = import_module(self._name).__path__
        # Before they are imported: a file that changes meanwhile counts as changed.
        self._stamps = {file: _stamp(file) for folder in folders for file in Path(folder).rglob("*.py")}
        # A list, because a package is imported to see what is in it.
        for name in [module.name for module in walk_packages(folders, f"{self._name}.", onerror=lambda name: None)]:
            if name not in self._programs and not name.endswith(".__main__"):
                try:
                    import_module(name)
                except Exception as error:
                    print(f"{name} is left to the steps that need it: {error!r}", flush=True)

    def unload(self) -> None:
        self._stamps = {}
        for name in [name for name in sys.modules if name.startswith(f"{self._name}.")]:
            del sys.modules[name]

    def unload_if_changed(self) -> None:
        changed = [file for file, stamp in self._stamps.items() if _stamp(file) != stamp]
        if changed:
            print(f"{changed[0]} has changed: from now on each step loads our code itself", flush=True)
            self.unload()


def _stamp(file: Path) -> Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
