"""The model registry, the single truth of what serves: versions and their aliases champion, challenger, previous.

A registered model has the spec's name. A version belongs to one run, whose artifact folder `served/` holds what is
served (contract/artifact.py); its digest is kept as the version's tag `digest`.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from training import atomic
from training.adapters.registry.connection import ABSENT, answering, connect
from training.contract.artifact import METADATA_FILE, ONNX_FILE
from training.contract.errors import DataContractError, InputError
from training.contract.traffic import Desired

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
#: The run artifact that is served, and the one that holds the sample of the training features.
SERVED, REFERENCE = "served", "reference"


@dataclass(frozen=True)
class ModelVersion:
    """A registered version. `digest` is the SHA-256 of its model.onnx; empty when a person registered it by hand."""

    model: str
    version: int
    run_id: str
    digest: str
    aliases: frozenset[str]


@dataclass(frozen=True)
class ModelState:
    """Which version each alias names, and the tags of the registered model. `created`: when it was made, in ms."""

    aliases: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    created: int = 0


class Registry:
    """The registered models at `tracking_uri`. Every method raises TransientError when MLflow does not answer."""

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri

    @cached_property
    def _client(self) -> "MlflowClient":
        return connect(self._uri)

    def state(self, model: str) -> ModelState:
        """Aliases and tags of `model` at one moment; empty when it does not exist. One request."""
        self._client  # noqa: B018 – connect first: the exception type is MLflow's
        from mlflow.exceptions import MlflowException

        with answering(self._uri):
            try:
                found = self._client.get_registered_model(model)
            except MlflowException as error:
                if error.error_code in ABSENT:
                    return ModelState()
                raise
        aliases = {alias: int(version) for alias, version in found.aliases.items()}
        return ModelState(aliases, dict(found.tags), found.creation_timestamp or 0)

    def set_traffic(self, model: str, desired: Desired) -> None:
        """Write the tags of a state of traffic, in the order that contract/traffic.py gives them."""
        present = self.state(model).tags
        with answering(self._uri):
            for tag, value in desired.tags.items():
                if value is not None and present.get(tag) != value:
                    self._client.set_registered_model_tag(model, tag, value)
                elif value is None and tag in present:
                    self._client.delete_registered_model_tag(model, tag)

    def by_alias(self, model: str, alias: str) -> ModelVersion | None:
        """The version that `alias` names; None when the model or the alias does not exist. One request."""
        return self._find(lambda: self._client.get_model_version_by_alias(model, alias))

    def get(self, model: str, version: int) -> ModelVersion:
        """Raises InputError when there is no such version."""
        found = self._find(lambda: self._client.get_model_version(model, str(version)))
        if found is None:
            raise InputError(
                f"{model} has no version {version} in {self._uri}", hint="MLflow's Models page lists them."
            )
        return found

    def versions(self, model: str) -> list[ModelVersion]:
        """Every version of `model`, oldest first; empty when the model is unknown."""
        with answering(self._uri):
            found, token = list[int](), None
            while True:
                page = self._client.search_model_versions(f"name='{model}'", page_token=token)
                found += [int(each.version) for each in page]
                if not (token := page.token):
                    break
        # A search does not tell aliases; asking for one version does.
        return [self.get(model, version) for version in sorted(found)]

    def register(self, model: str, run_id: str, digest: str, tags: Mapping[str, str]) -> ModelVersion:
        """Make the artifact of run `run_id` a version of `model`; the same run again gives the same version."""
        with answering(self._uri):
            self._ensure_model(model)
            found = self._client.search_model_versions(f"name='{model}' and run_id='{run_id}'")
            if found:
                version = min(int(each.version) for each in found)
                for key, value in tags.items():
                    self._client.set_model_version_tag(model, str(version), key, value)
            else:
                version = self._create(model, run_id, {**tags, "digest": digest})
        return self.get(model, version)

    def set_alias(self, model: str, alias: str, version: int) -> None:
        with answering(self._uri):
            self._client.set_registered_model_alias(model, alias, str(version))

    def point(self, model: str, aliases: Iterable[tuple[str, int | None]]) -> None:
        """Set aliases in this order; None removes one."""
        for alias, version in aliases:
            if version is None:
                self.remove_alias(model, alias)
            else:
                self.set_alias(model, alias, version)

    def remove_alias(self, model: str, alias: str) -> None:
        """No error when the alias does not exist."""
        if self.by_alias(model, alias) is not None:
            with answering(self._uri):
                self._client.delete_registered_model_alias(model, alias)

    def tag(self, model: str, version: int, key: str, value: str) -> None:
        with answering(self._uri):
            self._client.set_model_version_tag(model, str(version), key, value)

    def download(self, version: ModelVersion, folder: Path) -> Path:
        """Put model.onnx and metadata.json of `version` into `folder`, whole or not at all. Returns `folder`.

        A folder that holds this version already is left as it is. Raises DataContractError when what the registry
        holds is not what was registered.
        """
        with answering(self._uri):
            return fetch_served(self._client, version.run_id, version.digest, folder)

    def download_file(self, version: ModelVersion, path: str, to: Path) -> bool:
        """Put the file `path` of the run's artifacts in place of `to`, whole or not at all. False: the run has none."""
        if not version.run_id:
            return False
        with answering(self._uri):
            kept = self._client.list_artifacts(version.run_id, str(Path(path).parent))
            if path not in {file.path for file in kept}:
                return False
            with atomic.replacing(to) as draft:
                _fetch(self._client, version.run_id, path, draft)
        return True

    def _find(self, request) -> ModelVersion | None:  # type: ignore[no-untyped-def]
        self._client  # noqa: B018 – connect first: the exception type is MLflow's
        from mlflow.exceptions import MlflowException

        with answering(self._uri):
            try:
                return _version(request())
            except MlflowException as error:
                if error.error_code in ABSENT:
                    return None
                raise

    def _ensure_model(self, model: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _create(self, model: str, run_id: str, tags: dict[str, str]) -> int:
        run = self._client.get_run(run_id)
        logged = run.outputs.model_outputs if run.outputs else []
        model_id = logged[-1].model_id if logged else None
        # The run's logged model makes the version loadable by MLflow's own means; what is served is `served/`.
        source = f"runs:/{run_id}/{SERVED}"
        if model_id:
            source = self._client.get_logged_model(model_id).artifact_location
        created = self._client.create_model_version(model, source, run_id=run_id, tags=tags, model_id=model_id)
        return int(created.version)


def fetch_served(client: "MlflowClient", run_id: str, digest: str, folder: Path) -> Path:
    """Put the artifact of run `run_id`, whose model.onnx has this digest, into `folder`: see Registry.download."""
    if (folder / METADATA_FILE).is_file() and _mismatch(folder, digest) is None:
        return folder
    with atomic.replacing(folder) as draft:
        _fetch(client, run_id, SERVED, draft)
        if problem := _mismatch(draft, digest):
            where = f"{SERVED}/ of run {run_id}"
            raise DataContractError(f"The model artifact in {where} is not usable: {problem}", hint="Train again.")
    return folder


def _fetch(client: "MlflowClient", run_id: str, path: str, to: Path) -> None:
    """Put the artifact `path` of a run, a file or a folder, at `to`."""
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f"{to.name}.") as temporary:
        os.rename(client.download_artifacts(run_id, path, temporary), to)


def _version(found) -> ModelVersion:  # type: ignore[no-untyped-def]
    digest, aliases = found.tags.get("digest", ""), frozenset(found.aliases)
    return ModelVersion(found.name, int(found.version), found.run_id or "", digest, aliases)


def _mismatch(folder: Path, digest: str) -> str | None:
    """What is wrong with the artifact in `folder`; None when it is whole and the one with `digest`."""
    try:
        content = (folder / ONNX_FILE).read_bytes()
        metadata = json.loads((folder / METADATA_FILE).read_text())
    except (OSError, ValueError) as error:
        return str(error)
    found = hashlib.sha256(content).hexdigest()
    wanted = digest or metadata.get("digest")
    return None if found == wanted == metadata.get("digest") else f"digest {found}, registered {wanted}"
