"""What steps pass to each other, under `settings.work`.

A step works in plain folders under `settings.scratch`. Where `settings.work` is an object store that is only its own
disk, and what others need is shared.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from training import storage
from training.adapters.registry import ModelVersion, Registry
from training.settings import StateSettings
from training.signing import artifact_check

#: Folders of a model in the work folder that are made again from the lake or loaded from MLflow when they are gone. Its
#: others are reports, which the ledger refers to.
MADE_AGAIN = ("artifacts", "backtests", "checkpoints", "datasets", "references", "searches", "snapshots", "versions")
#: Folders of a source: replays of quarantined rows that are not finished; in landing, corrected rows.
REPLAYS, CORRECTIONS = "replays", "_corrections"
#: The folder of a source, on the step's own disk, for the files of an ingest under way.
UNDER_WAY = "ingest"
#: The folder of a source with pages about its partitions.
DATA_DOCS = "data_docs"
#: The folder of a model with the evidence of its versions. It stays for ever, as they do.
EVIDENCE = "evidence"


class OwnState(StateSettings):
    """A state beside the live one. What is trained there is only compared."""

    @property
    def may_serve(self) -> bool:
        return False


def own_state(settings: StateSettings, home: Path, **changes: Path) -> OwnState:
    """Settings for steps that compute beside the live state: what they write lies in `home`, with an MLflow in a file.

    Versions there are not signed: nothing serves them.
    The lake is that of `settings`, to be read only. `changes`: other folders of specs.
    """
    given = ("models_dir", "feature_repo", "artifact_maximum_mib", "git_sha", "image", "log_level")
    fields = {name: getattr(settings, name) for name in given} | changes
    home.mkdir(parents=True, exist_ok=True)
    unsigned: dict[str, Any] = {"trusted_keys": "", "signing_key_file": "", "signing_key_password": None}
    uri = f"sqlite:///{home}/mlflow.db"
    return OwnState(home=home, lake_uri=settings.lake, tracking_uri=uri, **fields, **unsigned)


def hours_until(days: int, now: datetime) -> int:
    """How many hours before this moment what is `days` days old at `now` was made; 0 when `now` is later than that."""
    return max(0, days * 24 - round((now - datetime.now(UTC)).total_seconds() / 3600))


def delete_old(uri: str, days: int, now: datetime, dry_run: bool = False) -> int:
    """Delete what lies directly in the folder `uri`, files and folders, of which no file has changed for `days` days
    before `now`. Returns the number of files and folders that go."""
    before = now - timedelta(days=days)
    found = storage.listing(uri)
    old = [each.name for each in found.files if each.changed < before]
    for name in old if not dry_run else ():
        storage.remove(storage.join(uri, name))
    folders = [name for name in found.folders if storage.last_change(storage.join(uri, name)) < before]
    for name in folders if not dry_run else ():
        storage.remove_folder(storage.join(uri, name))
    return len(old) + len(folders)


def shared_uri(settings: StateSettings, folder: Path) -> str:
    """The URI under `settings.work` that `folder`, which lies under `settings.scratch`, is shared as."""
    return storage.join(settings.work, folder.relative_to(settings.scratch).as_posix())


def share(settings: StateSettings, folder: Path) -> str:
    """Copy `folder` to its `shared_uri` if need be; returns that.

    Raises TransientError when the store does not answer, ConfigError when it refuses us.
    """
    uri = shared_uri(settings, folder)
    if storage.is_remote(uri):
        storage.upload(folder, uri)
    return uri


def served_artifact(settings: StateSettings, version: ModelVersion) -> Path:
    """The folder with the served artifact of `version` (contract/artifact.py), downloaded when it is not there yet.

    Raises DataContractError when the registry's artifact is not what was registered or, with CT_TRUSTED_KEYS, not
    signed; TransientError when MLflow does not answer.
    """
    folder = settings.scratch / version.model / "versions" / str(version.version)
    check = artifact_check(version.model, version.version, settings)
    return Registry(settings.tracking_uri).download(version, folder, settings.artifact_maximum_mib, check)
