"""The model registry. Its versions and their aliases champion, challenger and previous decide what is served.

A registered model has the name of the spec. A version belongs to one run. The artifact folder `served/` of the run
holds the files that are served (contract/artifact.py). The version's tag `digest` is the SHA-256 of model.onnx.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import atomic
from training.adapters.registry.connection import ABSENT, connect, contract_errors, sent_once
from training.adapters.registry.downloads import SERVED, fetch, fetch_served, listed
from training.adapters.registry.pages import pages, registered_names, versions_of
from training.contract.artifact import MAXIMUM_MIB, ArtifactCheck
from training.contract.errors import DataContractError, InputError
from training.contract.names import did_you_mean
from training.contract.traffic import FIRST, TAGS, Desired, FirstLoad

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
#: The most characters of the description of a version: MLflow's column in a database (String(5000)).
DESCRIPTION_LENGTH = 5000
#: Tag of versions, of runs and of their inputs: the version of a table that they were made of.
TABLE = "table."
#: Tag of a version: the SHA-256 of its metadata.json, for `make verify`.
METADATA_DIGEST = "metadata_digest"
log = logging.getLogger("perennial")

#: Registered models per request, the most that MLflow gives.
_PAGE = 1000


@dataclass(frozen=True)
class ModelVersion:
    """A registered version. `digest` is the SHA-256 of its model.onnx, `metadata_digest` that of its metadata.json.
    Empty: the tag is missing."""

    model: str
    version: int
    run_id: str
    digest: str
    aliases: frozenset[str]
    metadata_digest: str = ""


@dataclass(frozen=True)
class ModelState:
    """Alias → version, and the tags of the registered model. `created`: the time of its creation, in ms since 1970."""

    aliases: Mapping[str, int] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    created: int = 0


def table_tags(versions: Mapping[str, int]) -> dict[str, str]:
    """The tags that name these table versions."""
    return {f"{TABLE}{table}": str(number) for table, number in versions.items()}


class Registry:
    """The registered models at `tracking_uri`. Every method raises TransientError when MLflow does not answer."""

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri

    @cached_property
    def _client(self) -> "MlflowClient":
        return connect(self._uri)

    def state(self, model: str) -> ModelState:
        """Aliases and tags of `model`, from one request. Empty when the model does not exist."""
        found = self._find(lambda: self._client.get_registered_model(model))
        return ModelState() if found is None else _state(found)

    def states(self, models: Sequence[str]) -> dict[str, ModelState]:
        """Aliases and tags of each of `models`, from few requests: one for one model, else one per 1,000 models that
        the registry has. Empty for a model that does not exist.
        """
        if len(models) < 2:
            return {model: self.state(model) for model in models}
        found = dict.fromkeys(models, ModelState())
        with contract_errors(self._uri):
            every = pages(self._client.search_registered_models, max_results=_PAGE)
            return found | {each.name: _state(each) for each in every if each.name in found}

    def set_traffic(self, model: str, desired: Desired) -> None:
        """Write the tags of `desired`, in the order that contract/traffic.py defines."""
        present = self.state(model).tags
        with contract_errors(self._uri):
            for tag, value in desired.tags.items():
                if value is not None and present.get(tag) != value:
                    self._client.set_registered_model_tag(model, tag, value)
                elif value is None and tag in present:
                    self._client.delete_registered_model_tag(model, tag)

    def by_alias(self, model: str, alias: str) -> ModelVersion | None:
        """The version with `alias`; None when the model or the alias does not exist.

        Does not ask for the alias itself: with MLflow's login, that is refused as forbidden while there is no model.
        """
        version = self.state(model).aliases.get(alias)
        return None if version is None else self.get(model, version)

    def require_model(self, model: str) -> None:
        """Raises InputError when MLflow has no registered model of this name."""
        if self._find(lambda: self._client.get_registered_model(model)) is not None:
            return
        with contract_errors(self._uri):
            known = registered_names(self._client)
        listed = f"Registered models: {', '.join(known) or 'none'}."
        hint = f"{did_you_mean(model, known)}{listed} A model is registered by its first training."
        raise InputError(f"There is no registered model {model!r} in {self._uri}", hint)

    def get(self, model: str, version: int) -> ModelVersion:
        """Raises InputError when there is no such version."""
        found = self._find(lambda: self._client.get_model_version(model, str(version)))
        if found is None:
            self.require_model(model)
            problem = f"{model} has no version {version} in {self._uri}"
            raise InputError(problem, hint="See the page Models in MLflow for its versions.")
        return _version(found)

    def versions(self, model: str) -> list[ModelVersion]:
        """All versions of `model`, oldest first; empty when the model does not exist."""
        with contract_errors(self._uri):
            found = [int(each.version) for each in versions_of(self._client, model)]
        # Search results have no aliases, so get each version.
        return [self.get(model, version) for version in sorted(found)]

    def register(
        self,
        model: str,
        run_id: str,
        digest: str,
        tags: Mapping[str, str],
        description: str = "",
        above: int = 0,
    ) -> ModelVersion:
        """Register the artifact of run `run_id` as a version of `model`. A second call returns the same version.

        `description` is what MLflow shows on the page of the version. A new version gets a number higher than `above`.
        """
        with contract_errors(self._uri):
            self._ensure_model(model)
            found = self._client.search_model_versions(f"name='{model}' and run_id='{run_id}'")
            if found:
                version = min(int(each.version) for each in found)
                for key, value in tags.items():
                    self._client.set_model_version_tag(model, str(version), key, value)
            else:
                version = self._create(model, run_id, {**tags, "digest": digest}, above)
            if description:
                self._client.update_model_version(model, str(version), description)
        return self.get(model, version)

    def set_alias(self, model: str, alias: str, version: int) -> None:
        with contract_errors(self._uri):
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
        if alias in self.state(model).aliases:
            with contract_errors(self._uri):
                self._client.delete_registered_model_alias(model, alias)

    def load_first(self, model: str, first: FirstLoad) -> None:
        """Have one replica load a version before the others load it as challenger."""
        with contract_errors(self._uri):
            self._client.set_registered_model_tag(model, FIRST, str(first))

    def load_everywhere(self, model: str, version: int) -> None:
        """End what `load_first` began for this version."""
        first = FirstLoad.of(self.state(model).tags)
        if first is not None and first.version == version:
            with contract_errors(self._uri):
                self._client.delete_registered_model_tag(model, FIRST)

    def retire(self, model: str) -> None:
        """Remove all aliases and the traffic tags of `model`, so that nothing of it is served. Its versions stay."""
        for tag in (*TAGS, FIRST):
            if tag in self.state(model).tags:
                with contract_errors(self._uri):
                    self._client.delete_registered_model_tag(model, tag)
        for alias in sorted(self.state(model).aliases):
            self.remove_alias(model, alias)

    def tag_model(self, model: str, key: str, value: str | None) -> None:
        """Set a tag of the registered model; None removes it. No error when there is none to remove."""
        if value is None and key not in self.state(model).tags:
            return
        with contract_errors(self._uri):
            if value is None:
                self._client.delete_registered_model_tag(model, key)
            else:
                self._client.set_registered_model_tag(model, key, value)

    def tag(self, model: str, version: int, key: str, value: str) -> None:
        with contract_errors(self._uri):
            self._client.set_model_version_tag(model, str(version), key, value)

    def download(
        self,
        version: ModelVersion,
        folder: Path,
        maximum_mib: int = MAXIMUM_MIB,
        check: ArtifactCheck | None = None,
    ) -> Path:
        """Download model.onnx and metadata.json of `version` into `folder`, both or none. Returns `folder`.

        Does nothing when the folder holds this version already. With `check` the signature comes along, and `check`
        looks at the folder. Raises DataContractError when a file is larger than `maximum_mib`, when the files in the
        registry are not those that were registered, or when the registry does not say which were: an artifact must not
        vouch for itself. And what `check` raises.
        """
        if not version.digest:
            problem = f"{version.model} version {version.version} has no tag digest in the registry"
            raise DataContractError(problem, hint="Train again: the step register sets the tag.")
        with contract_errors(self._uri):
            return fetch_served(self._client, version.run_id, version.digest, folder, maximum_mib, check)

    def files(self, run_id: str, folder: str) -> list[str]:
        """The names of the files in `folder` of a run's artifacts, sorted; none when there is no such folder."""
        with contract_errors(self._uri):
            return sorted(name for name, size in listed(self._client, run_id, folder).items() if size is not None)

    def describe(self, model: str, text: str) -> None:
        """Set what MLflow shows on the page of the model."""
        with contract_errors(self._uri):
            self._client.update_registered_model(model, text)

    def download_file(self, run_id: str, path: str, to: Path) -> bool:
        """Download the artifact `path` of a run to the file `to`. False when the run has no such file."""
        if not run_id:
            return False
        with contract_errors(self._uri):
            if Path(path).name not in listed(self._client, run_id, str(Path(path).parent)):
                return False
            with atomic.replacing(to) as draft:
                fetch(self._client, run_id, path, draft)
        return True

    def _find(self, request: Callable[[], Any]) -> Any:
        """What `request` returns; None when MLflow has no such thing."""
        self._client  # noqa: B018 – connect first: the exception type is MLflow's
        from mlflow.exceptions import MlflowException

        with contract_errors(self._uri):
            try:
                return request()
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

    def _create(self, model: str, run_id: str, tags: dict[str, str], above: int) -> int:
        run = self._client.get_run(run_id)
        logged = run.outputs.model_outputs if run.outputs else []
        model_id = logged[-1].model_id if logged else None
        # With the run's logged model as source, MLflow itself can load the version. Serving uses `served/`.
        source = f"runs:/{run_id}/{SERVED}"
        if model_id:
            source = self._client.get_logged_model(model_id).artifact_location
        with sent_once():
            self._use_up(model, above, f"runs:/{run_id}/{SERVED}")
            created = self._client.create_model_version(model, source, run_id=run_id, tags=tags, model_id=model_id)
        return int(created.version)

    def _use_up(self, model: str, above: int, source: str) -> None:
        """Make versions of `model` and delete them, until the next has a number higher than `above`.

        MLflow numbers versions in a row, and gives the number of a deleted one to no other.
        """
        newest = self._client.search_model_versions(f"name='{model}'", 1, ["version_number DESC"])
        taken = max((int(each.version) for each in newest), default=0)
        if taken < above:
            log.warning(
                "The registry lacks version %d of %s, which the ledger or predictions name: it was restored from an "
                "older copy. The next version gets a higher number",
                *(above, model),
            )
        while taken < above:
            taken = int(self._client.create_model_version(model, source).version)
            self._client.delete_model_version(model, str(taken))


def _state(found) -> ModelState:  # type: ignore[no-untyped-def]
    aliases = {alias: int(version) for alias, version in found.aliases.items()}
    return ModelState(aliases, dict(found.tags), found.creation_timestamp or 0)


def _version(found) -> ModelVersion:  # type: ignore[no-untyped-def]
    digest, aliases = found.tags.get("digest", ""), frozenset(found.aliases)
    metadata_digest = found.tags.get(METADATA_DIGEST, "")
    return ModelVersion(found.name, int(found.version), found.run_id or "", digest, aliases, metadata_digest)
