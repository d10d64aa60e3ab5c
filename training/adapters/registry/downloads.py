"""Downloads of the artifacts of a run. What is served is compared with the digest that was registered."""

import hashlib
import json
import os
import tempfile
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
    for file in client.list_artifacts(run_id, SERVED):
        if file.path not in (f"{SERVED}/{ONNX_FILE}", f"{SERVED}/{METADATA_FILE}"):
            raise DataContractError(f"Run {run_id} has {file.path}, which is no part of an artifact", "Train again.")
        if file.file_size and file.file_size > maximum_mib * 2**20:
            raise too_large(f"{file.path} of run {run_id}", file.file_size, maximum_mib)
    with atomic.replacing(folder) as draft:
        fetch(client, run_id, SERVED, draft)
        if check is not None:
            signature = signature_of(SERVED)
            if signature in {file.path for file in client.list_artifacts(run_id, SIGNATURES)}:
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


def fetch(client: "MlflowClient", run_id: str, path: str, to: Path) -> None:
    """Download the artifact `path` of a run, a file or a folder, to `to`."""
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f"{to.name}.") as temporary:
        os.rename(client.download_artifacts(run_id, path, temporary), to)


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
