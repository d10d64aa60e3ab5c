"""Downloads of the artifacts of a run. What is served is compared with the digest that was registered."""

import hashlib
import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from training import atomic
from training.contract.artifact import (
    METADATA_FILE,
    ONNX_FILE,
    SIGNATURE_FILE,
    SIGNATURES,
    ArtifactCheck,
    signature_of,
    too_large,
)
from training.contract.errors import DataContractError

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Artifact folders of a run: what is served, and a sample of the training features.
SERVED, REFERENCE = "served", "reference"


def fetch_served(
    client: "MlflowClient",
    run_id: str,
    digest: str,
    folder: Path,
    maximum_mib: int,
    check: ArtifactCheck | None = None,
) -> Path:
    """Download the artifact of run `run_id` and check its digest: see Registry.download."""
    if (folder / METADATA_FILE).is_file() and _mismatch(folder, digest) is None and _passes(folder, check):
        return folder
    for file, size in listed(client, run_id, SERVED).items():
        path = f"{SERVED}/{file}"
        if file not in (ONNX_FILE, METADATA_FILE):
            raise DataContractError(f"Run {run_id} has {path}, which is not part of an artifact", "Train again.")
        if size and size > maximum_mib * 2**20:
            raise too_large(f"{path} of run {run_id}", size, maximum_mib)
    with atomic.replacing(folder) as draft:
        fetch(client, run_id, SERVED, draft)
        if check is not None:
            signature = signature_of(SERVED)
            if Path(signature).name in listed(client, run_id, SIGNATURES):
                fetch(client, run_id, signature, draft / SIGNATURE_FILE)
            check(draft)
        if problem := _mismatch(draft, digest):
            where = f"{SERVED}/ of run {run_id}"
            raise DataContractError(f"The model artifact in {where} is not valid: {problem}", hint="Train again.")
    return folder


def _passes(folder: Path, check: ArtifactCheck | None) -> bool:
    """Whether a folder that was downloaded before passes `check`. If not, it may be that it was signed since."""
    try:
        return check is None or check(folder) is not None
    except DataContractError:
        return False


def listed(client: "MlflowClient", run_id: str, folder: str) -> dict[str, int | None]:
    """What is in `folder` of a run's artifacts: name → bytes, None for a folder. Empty when there is no such folder.

    `client.list_artifacts` would also search all logged models of the experiment for one that is called `folder`.
    """
    from mlflow.artifacts import list_artifacts

    found = list_artifacts(_uri(client, run_id, folder), tracking_uri=client.tracking_uri)
    return {Path(file.path).name: None if file.is_dir else file.file_size or 0 for file in found}


def fetch(client: "MlflowClient", run_id: str, path: str, to: Path) -> None:
    """Download the artifact `path` of a run, a file or a folder, to `to`. Searches no logged models, as `listed`."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f"{to.name}.") as temporary:
        uri = _uri(client, run_id, path)
        # MLflow names the copy as the artifact.
        os.rename(download_artifacts(uri, dst_path=temporary, tracking_uri=client.tracking_uri), to)


def _uri(client: "MlflowClient", run_id: str, path: str) -> str:
    from mlflow.utils.uri import append_to_uri_path

    uri: str = append_to_uri_path(_artifact_uri(client, run_id), path)
    return uri


@lru_cache(maxsize=64)
def _artifact_uri(client: "MlflowClient", run_id: str) -> str:
    """Where the artifacts of a run are. It never changes; a signed version is asked for it four times."""
    uri: str = client.get_run(run_id).info.artifact_uri
    return uri


def _mismatch(folder: Path, digest: str) -> str | None:
    """What is wrong with the artifact in `folder`; None when it is complete and has `digest`."""
    try:
        content = (folder / ONNX_FILE).read_bytes()
        metadata = json.loads((folder / METADATA_FILE).read_text())
    except OSError as error:
        return str(error)
    except ValueError as error:
        return f"{METADATA_FILE} cannot be read: {error}"
    found = hashlib.sha256(content).hexdigest()
    return (
        None if found == digest == metadata.get("digest") else f"its digest is {found}, the registered one is {digest}"
    )
