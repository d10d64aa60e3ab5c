"""The specs of the models that this service serves, read again when their files change."""

import os
from collections.abc import Mapping
from pathlib import Path

from training.contract.errors import ConfigError
from training.contract.model_spec import ModelSpec, load_model_spec, model_names, source_of
from training.settings import ServingSettings

Stamp = tuple[int, int, int] | None


class ServedSpecs:
    """CT_SERVING_MODELS lists the models, or is `*`: then these are all whose spec names the service."""

    def __init__(self, settings: ServingSettings) -> None:
        #: Model → its last good spec. Replaced, never changed.
        self.good: Mapping[str, ModelSpec] = {}
        #: Model → why its file cannot be used as it is now.
        self.broken: Mapping[str, str] = {}
        self._settings = settings
        #: Model → its spec at the last reading, or the error; and the files that were read.
        self._read: dict[str, tuple[ModelSpec | ConfigError, tuple[Path, ...], tuple[Stamp, ...]]] = {}

    def read(self) -> bool:
        """Read the files that have changed since the last call. Returns whether `good` or `broken` changed.

        A model whose file is broken keeps its last good spec. One whose file is gone has none. Raises ConfigError when
        the whole folder is gone, as while a volume is away: that removes no model.
        """
        settings = self._settings
        if not settings.models_dir.is_dir():
            hint = "Mount the folder again, or set CT_MODELS_DIR to another."
            raise ConfigError(f"There is no folder {settings.models_dir} of model specs", hint)
        present = model_names(settings.models_dir)
        names = present if settings.listed_models is None else settings.listed_models
        self._read = {name: self._read_again(name) for name in names}
        good, broken = dict[str, ModelSpec](), dict[str, str]()
        for name, (found, _, _) in self._read.items():
            if isinstance(found, ConfigError):
                broken[name] = str(found)
                if name in self.good and name in present:
                    good[name] = self.good[name]
            elif settings.listed_models is not None or found.serving == settings.serving_name:
                good[name] = found
        changed = (good, broken) != (self.good, self.broken)
        self.good, self.broken = good, broken
        return changed

    def require(self) -> None:
        """Raises ConfigError when no model can be served because its spec is broken."""
        if self.broken and not self.good:
            raise next(found for found, _, _ in self._read.values() if isinstance(found, ConfigError))

    def _read_again(self, name: str) -> tuple[ModelSpec | ConfigError, tuple[Path, ...], tuple[Stamp, ...]]:
        """The spec of `name`, or the error, from its files if they have changed."""
        folder, sources = self._settings.models_dir, self._settings.feature_repo
        if name in self._read and self._read[name][2] == _stamps(self._read[name][1]):
            return self._read[name]
        source = source_of(name, folder)
        paths = (folder / f"{name}.yaml", *([sources / f"{source}.yaml"] if source else []))
        stamps = _stamps(paths)  # Before reading: a file that changes meanwhile is read again.
        try:
            return load_model_spec(name, folder, sources), paths, stamps
        except ConfigError as error:
            return error, paths, stamps


def _stamps(paths: tuple[Path, ...]) -> tuple[Stamp, ...]:
    return tuple(map(_stamp, paths))


def _stamp(path: Path) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
