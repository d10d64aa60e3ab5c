"""Loads versions so that a bad one cannot take the service down: ADR 29.

A version that this replica has not loaded yet is tried out in another process first. Each load is in a journal on disk:
if the service dies during it, the version is refused after the restart.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import onnxruntime

from serving.load_journal import LoadJournal
from serving.trials import Trials
from training.contract.errors import DataContractError
from training.settings import ServingSettings

#: At most so many versions of all models are opened at a time, which takes the processors. Downloads wait for nobody.
OPENED_AT_A_TIME = 2

T = TypeVar("T")


class LoadDied(DataContractError):
    """The service died while it loaded the version. It is refused until `retry`."""


class LoadGuard:
    """For all models of the service. Any thread may call."""

    def __init__(self, settings: ServingSettings) -> None:
        self._journal = LoadJournal(Path(settings.serving) / "loads.json")
        self._trials = Trials(settings)
        self._opening = threading.Semaphore(OPENED_AT_A_TIME)
        #: Another ONNX Runtime may take more memory for the same version.
        self._loaded_by = f"onnxruntime {onnxruntime.__version__}"

    def check(self, model: str, digest: str, champion: bool = False) -> None:
        """Raises LoadDied when the version of `model` with this digest must not be loaded."""
        if problem := self._journal.problem(digest, champion):
            hint = f"Train another version, or have it tried again: POST /admin/models/{model}/retry."
            raise LoadDied(problem, hint)

    def load(
        self, model: str, version: int, digest: str, folder: Path, load: Callable[[], T], champion: bool = False
    ) -> T:
        """What `load` returns, which loads the artifact in `folder`. `champion`: whether it is that of the registry.

        Raises DataContractError (LoadDied, TrialEnded) when the version must not be loaded, TransientError when it
        cannot be tried out now, and whatever `load` raises.
        """
        self.check(model, digest, champion)
        if self._journal.loaded_by(digest) != self._loaded_by:
            # The process is started before: its start says nothing about the version.
            with self._trials.process() as process, self._journal.loading(model, version, digest):
                process.try_out(folder)
        with self._opening, self._journal.loading(model, version, digest, self._loaded_by):
            return load()

    def retry(self, model: str) -> None:
        """Allow the versions of `model` to be loaded again."""
        self._journal.forgive(model)

    def close(self) -> None:
        self._journal.close()
        self._trials.close()
