"""Signing model versions, and checking the signatures: which settings apply, and where signatures lie.

A run has one signature for each of its folders `served`, `recipe` and `reference` (contract/artifact.py, signature_of).
"""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

from training import storage
from training.adapters.registry import REFERENCE, SERVED, Registry, Runs
from training.adapters.signatures import key_of, sign, trusted_keys
from training.contract.artifact import METADATA_FILE, ONNX_FILE, SIGNATURES, ArtifactCheck, signature_of
from training.contract.errors import ConfigError, DataContractError
from training.contract.recipe import RECIPE_FOLDER
from training.settings import StateSettings

log = logging.getLogger("perennial")

#: The tag of a version: the id of the key that signed it.
SIGNED_BY = "signed_by"


def artifact_check(model: str, version: int, settings: StateSettings) -> ArtifactCheck | None:
    """What verifies a folder with the served artifact of a version; None without CT_TRUSTED_KEYS.

    Raises ConfigError when the keys cannot be read. The check raises DataContractError.
    """
    return _check(f"Version {version} of {model}", f"make sign MODEL={model} VERSION={version}", settings)


def _check(named: str, command: str, settings: StateSettings) -> ArtifactCheck | None:
    keys = trusted_keys(settings.trusted_keys)
    hint = f"If it was registered before there was a key and you trust it, sign it: {command}."
    return (lambda folder: keys.check(folder, named, hint)) if keys else None


def fetch_signed(run_id: str, path: str, to: Path, named: str, settings: StateSettings) -> bool:
    """Download the artifact `path`, `<folder>/<file>`, of a run to the file `to`. False when the run has no such file.

    With CT_TRUSTED_KEYS its signature is verified. Raises DataContractError, about `named`, when it has none or when it
    is not as it was signed.
    """
    registry, keys, folder = Registry(settings.tracking_uri), trusted_keys(settings.trusted_keys), Path(path).parent
    with TemporaryDirectory() as fetched:
        file, signature = Path(fetched, to.name), Path(fetched, "signature")
        if not registry.download_file(run_id, path, file):
            return False
        content = file.read_bytes()
        if keys:
            if not registry.download_file(run_id, signature_of(str(folder)), signature):
                problem = f"{path} of {named} is not signed, and CT_TRUSTED_KEYS requires it"
                raise DataContractError(problem, "Sign the version if you trust it: make sign.")
            keys.check_file(signature.read_bytes(), Path(path).name, content, f"{path} of {named}")
    to.parent.mkdir(parents=True, exist_ok=True)
    storage.write(str(to), content)
    return True


def sign_run(model: str, run_id: str, digest: str, artifact: str, settings: StateSettings) -> str:
    """Sign the `artifact`, a folder or its URI, and what else the run has. Returns the id of the key.

    Then fetches the artifact from the run, to see that the run has what was signed. Empty, and nothing is done, when
    neither CT_SIGNING_KEY_FILE nor CT_TRUSTED_KEYS is set. Raises ConfigError when only the keys that verify are set,
    or when the private key is none of theirs; DataContractError when the run has another artifact.
    """
    if not settings.signing_key_file:
        if settings.trusted_keys:
            problem = f"CT_TRUSTED_KEYS is set, and there is no key to sign this version of {model} with"
            raise ConfigError(problem, "Set CT_SIGNING_KEY_FILE for the step register: docs/security.md.")
        return ""
    runs = Runs(settings.tracking_uri, model, str(settings.home / "mlflow"))
    with TemporaryDirectory() as folder:
        served, signatures = Path(folder, SERVED), Path(folder, "signatures")
        served.mkdir()
        signatures.mkdir()
        for name in (ONNX_FILE, METADATA_FILE):
            (served / name).write_bytes(storage.read(storage.join(artifact, name)) or b"")
        others = [Path(folder, name) for name in (RECIPE_FOLDER, REFERENCE) if _copy(run_id, name, folder, settings)]
        for each in (served, *others):
            signature = _signature(each, settings)
            Path(signatures, Path(signature_of(each.name)).name).write_bytes(signature)
        runs.log_files(run_id, signatures, SIGNATURES)
        check = _check(f"The artifact of run {run_id}", f"make sign MODEL={model}", settings)
        runs.fetch(run_id, digest, Path(folder, "fetched"), settings.artifact_maximum_mib, check)
    log.info("Signed the artifact of run %s with the key %s", run_id, key_of(signature))
    return key_of(signature)


def _signature(folder: Path, settings: StateSettings) -> bytes:
    password = settings.signing_key_password
    signature = sign(folder, settings.signing_key_file, password.get_secret_value() if password else None)
    if (keys := trusted_keys(settings.trusted_keys)) and (key := key_of(signature)) not in keys.ids:
        problem = f"CT_SIGNING_KEY_FILE is the private key of {key}, which is not among CT_TRUSTED_KEYS"
        raise ConfigError(problem, "Add its public key there first, for serving and for steps: docs/security.md.")
    return signature


def _copy(run_id: str, name: str, folder: str, settings: StateSettings) -> bool:
    """Download the artifact folder `name` of a run into `folder`. False when the run has none."""
    registry = Registry(settings.tracking_uri)
    for file in registry.files(run_id, name):
        registry.download_file(run_id, f"{name}/{file}", Path(folder, name, file))
    return Path(folder, name).is_dir()
