"""The prediction logs of a replica. Each has a folder, `predictions/<source>/<model>`.

What waits in a folder is also shipped when its model is no longer served, because its spec was removed, is broken or
names another source now. This works after a restart too: `event.schema` in the folder has the columns.
"""

import logging
import threading
from pathlib import Path

from serving.log_threads import LogThreads
from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from serving.segments import EventLayout
from serving.spool import OPEN, SEALED
from training import atomic
from training.adapters.lake import Lake
from training.contract.model_spec import ModelSpec

_LAYOUT = "event.schema"
_STUCK, _PUT_BACK = "Predictions wait and cannot be shipped,", "Put the spec of the model back until they are"

log = logging.getLogger("perennial")


class SpoolFolders:
    """`folder`: that of the replica with the name `replica`. `ship_seconds`: as in PredictionLog."""

    def __init__(
        self, folder: Path, lake: str, replica: str, metrics: Metrics, ship_seconds: float | None = None
    ) -> None:
        self._folder, self._lake, self._replica, self._metrics = folder / "predictions", lake, replica, metrics
        self._ship_seconds, self._threads = ship_seconds, LogThreads()
        self._lock = threading.Lock()
        #: By folder.
        self._logs: dict[Path, PredictionLog] = {}

    def open(self, spec: ModelSpec) -> PredictionLog:
        """The running log of a model, as it is; a new one has the columns of `spec`."""
        source, model = spec.source.name, spec.name
        with self._lock:
            folder = self._folder / source / model
            if folder not in self._logs:
                _take_in(self._folder / model, folder)
                self._start(folder, source, model, EventLayout.of(spec))
            return self._logs[folder]

    def follow(self, spec: ModelSpec) -> None:
        """Have the log of a model log the columns of `spec` from now on."""
        layout, found = EventLayout.of(spec), self.open(spec)
        found.layout = layout
        self._keep_layout(self._folder / spec.source.name / spec.name, layout)

    def ship_leftovers(self) -> None:
        """Start the logs of folders in which predictions wait and whose models are not served."""
        for path in self._folder.glob(f"*/*{SEALED}"):
            log.error("%s in %s: it does not say of which source. %s", *(_STUCK, path, _PUT_BACK))
        for path in sorted(self._folder.glob("*/*")):
            with self._lock:
                if path in self._logs or not any(each.stat().st_size for each in _segments(path)):
                    continue
                try:
                    layout = EventLayout.read(path / _LAYOUT)
                    self._start(path, path.parent.name, path.name, layout)
                    log.warning("%s is not served, and predictions wait in %s: they are shipped", path.name, path)
                except (OSError, ValueError) as error:
                    log.error("%s in %s: %s. %s", *(_STUCK, path, error, _PUT_BACK))

    def close(self) -> None:
        """Write the rows of all logs to disk, and ship what can be shipped."""
        with self._lock:
            closing = [threading.Thread(target=each.close, daemon=True) for each in self._logs.values()]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()

    def _start(self, folder: Path, source: str, model: str, layout: EventLayout) -> None:
        lake, metrics = Lake(self._lake, source, model), self._metrics.of(model)
        made = PredictionLog(folder, lake, layout, self._replica, metrics, self._threads, self._ship_seconds)
        self._keep_layout(folder, layout)
        made.start()
        self._logs[folder] = made

    def _keep_layout(self, folder: Path, layout: EventLayout) -> None:
        path, content = folder / _LAYOUT, layout.content
        try:
            if not path.exists() or path.read_bytes() != content:
                atomic.write(path, content)
        except OSError as error:
            log.warning("%s cannot be written: %s. It is needed only when the model is removed", path, error)


def _segments(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.suffix in (OPEN, SEALED)] if folder.is_dir() else []


def _take_in(old: Path, folder: Path) -> None:
    """Move the segments of the version before, which had no folder for each source, to where they belong now."""
    numbers = [int(path.stem) for path in _segments(folder)]
    for path in sorted(path for path in _segments(old) if path.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        number = int(path.stem)
        if number in numbers:
            number = max(numbers) + 1
        numbers.append(number)
        path.rename(folder / f"{number:012d}{path.suffix}")
