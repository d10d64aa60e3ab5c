"""`python -m training.sign <model> [<version> …]`: sign versions that were registered before there was a key.

Without a version: all that have an alias. Signing vouches for what the registry has now, so look first: its digest is
compared with the registry's tag, and its golden rows are scored, but nobody else has vouched for the files. The tag
`metadata_digest` becomes that of the signed metadata.json.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from training.adapters.ledger import Ledger
from training.adapters.onnx_model import OnnxModel
from training.adapters.registry import ModelVersion, Registry
from training.adapters.registry.versions import METADATA_DIGEST
from training.adapters.signatures import file_digest
from training.contract.artifact import METADATA_FILE
from training.contract.errors import ConfigError, ExitCode, InputError, StepError
from training.settings import StateSettings, load_settings
from training.signing import SIGNED_BY, sign_run

#: The kind of a ledger entry.
SIGNATURE = "signature"


def main(model: str, *versions: str) -> int:
    try:
        for line in sign_versions(model, versions, load_settings()):
            print(line)
    except StepError as error:
        print(f"sign failed: {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


def sign_versions(model: str, versions: tuple[str, ...], settings: StateSettings) -> list[str]:
    """Sign versions and write that to the ledger. Returns a line for each.

    Raises ConfigError without a private key, InputError when there is no such version, DataContractError when the
    registry has another artifact than was registered.
    """
    if not settings.signing_key_file:
        raise ConfigError("There is no key to sign with", "Set CT_SIGNING_KEY_FILE: docs/security.md.")
    registry = Registry(settings.tracking_uri)
    if bad := [text for text in versions if not text.isdecimal()]:
        raise InputError(f"{bad[0]!r} is not the number of a version", hint="Write VERSION=3, or leave it out.")
    registry.require_model(model)
    numbers = [int(text) for text in versions] or sorted(set(registry.state(model).aliases.values()))
    if not numbers:
        raise InputError(f"No version of {model} has an alias", hint="Name one: VERSION=<number>.")
    return [_sign(registry.get(model, number), registry, settings) for number in numbers]


def _sign(version: ModelVersion, registry: Registry, settings: StateSettings) -> str:
    with TemporaryDirectory() as folder:
        artifact = registry.download(version, Path(folder, "served"), settings.artifact_maximum_mib)
        OnnxModel.load(artifact, maximum_mib=settings.artifact_maximum_mib).check_golden()
        metadata_digest = file_digest(artifact / METADATA_FILE)
        key = sign_run(version.model, version.run_id, version.digest, str(artifact), settings)
    registry.tag(version.model, version.version, SIGNED_BY, key)
    registry.tag(version.model, version.version, METADATA_DIGEST, metadata_digest)
    body = {"version": version.version, "digest": version.digest, "metadata_digest": metadata_digest, "key": key}
    entry = f"v{version.version}:{version.digest}:{metadata_digest}:{key}"
    Ledger(settings.ledger).append(SIGNATURE, version.model, body, entry)
    said = f"Signed version {version.version} of {version.model}, digest {version.digest}, with the key {key}"
    if version.metadata_digest in ("", metadata_digest):
        return said
    return f"{said}. Its {METADATA_FILE} was changed since it was registered: {metadata_digest} is the SHA-256 now"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
