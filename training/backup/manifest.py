"""What a backup holds: the file `manifest.json`, which is written last. A folder without it is not a backup."""

from datetime import datetime
from typing import Final

from pydantic import ValidationError

from training import storage
from training.contract.base import Frozen
from training.contract.errors import DataContractError, InputError

MANIFEST: Final = "manifest.json"
AIRFLOW, REGISTRY, LEDGER, ARTIFACTS, WORK, FEAST, LAKE = (
    *("airflow", "registry", "ledger", "artifacts", "work", "feast", "lake"),
)
#: The file of a database in its folder.
DATABASE: Final = "database"


class FileRecord(Frozen):
    """`size` in bytes; `sha256` in hex."""

    size: int
    sha256: str


class Manifest(Frozen):
    version: int = 1
    began: datetime
    ended: datetime
    git_sha: str | None
    #: The root of MLflow's artifacts. Runs that were logged without a server name their folders by it.
    artifacts: str
    #: Model → source.
    sources: dict[str, str]
    #: Parts that did not exist, as sentences.
    absent: list[str]
    #: Path in the backup → file.
    files: dict[str, FileRecord]


def read_manifest(uri: str) -> Manifest:
    """The manifest of the backup in folder `uri`. Raises InputError without one, DataContractError for a broken one."""
    content = storage.read(storage.join(uri, MANIFEST))
    if content is None:
        raise InputError(f"{uri} is not a finished backup: it has no {MANIFEST}", "Name the folder of a backup.")
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise DataContractError(f"{uri}/{MANIFEST} was altered: {error}", "Use another backup.") from error
