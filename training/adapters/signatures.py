"""Signatures of artifact folders, as OpenSSF model signing writes them (the library model-signing, format v1.0).

A signature is a Sigstore bundle with an in-toto statement, which names each file with its SHA-256, in a DSSE envelope
signed with an elliptic-curve key. The library signs. It takes a second to import, with Sigstore's clients. So what is
verified before each load is verified here, with `cryptography` alone. Tests hold both against each other.
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from training.contract.artifact import SIGNATURE_FILE
from training.contract.errors import ConfigError, DataContractError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

#: File name → its SHA-256, hexadecimal.
Digests = Mapping[str, str]
#: Digits of a key's id in messages and tags.
SHORT = 16

_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
#: Curve → the hash that its signatures are over: those that the library signs with.
_CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}
_PEM = re.compile(r"-----(BEGIN|END) PUBLIC KEY-----")


class TrustedKeys:
    """The public keys of which one must have signed an artifact. Empty: signatures are not looked at."""

    def __init__(self, text: str) -> None:
        """`text`: keys, comma separated, each as PEM or as what stands between the PEM's first and last line.

        Raises ConfigError for a key that cannot be read.
        """
        self._keys = dict(_public_key(part) for part in text.split(",") if part.strip())

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def ids(self) -> list[str]:
        """The SHA-256 of each key, hexadecimal, shortened."""
        return [name[:SHORT] for name in self._keys]

    def check(self, folder: Path, named: str, hint: str = "") -> Digests:
        """Verify the files of `folder` against the signature beside them. Returns the digests that were signed.

        Raises DataContractError that names what is wrong: no signature, another key, each file that was changed, added
        or removed. `hint`: what to do when there is no signature.
        """
        file = folder / SIGNATURE_FILE
        if not file.is_file():
            raise DataContractError(f"{named} is not signed, and CT_TRUSTED_KEYS requires it", hint)
        signed = self.signed(file.read_bytes(), named)
        found = {
            each.relative_to(folder).as_posix(): file_digest(each)
            for each in sorted(folder.rglob("*"))
            if each.is_file() and each != file
        }
        if problems := differences(signed, found):
            raise _not_as_signed(named, problems)
        return signed

    def check_file(self, signature: bytes, name: str, content: bytes, named: str) -> None:
        """Verify one of the files that `signature` is about. Raises DataContractError as `check` does."""
        found = {name: hashlib.sha256(content).hexdigest()}
        expected = {file: digest for file, digest in self.signed(signature, named).items() if file == name}
        if problems := differences(expected, found):
            raise _not_as_signed(named, problems)

    def signed(self, signature: bytes, named: str) -> Digests:
        """What `signature` says about the files of `named`. Raises DataContractError when no trusted key signed it."""
        try:
            bundle = json.loads(signature)
            envelope, key = bundle["dsseEnvelope"], bundle["verificationMaterial"]["publicKey"]["hint"]
            payload = base64.b64decode(envelope["payload"], validate=True)
            value = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
            kind = str(envelope["payloadType"])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataContractError(f"The signature of {named} cannot be read: {error!r}", _SIGN_AGAIN) from error
        if key not in self._keys:
            problem = f"{named} is signed with the key {str(key)[:SHORT]}, which is not among CT_TRUSTED_KEYS"
            raise DataContractError(problem, f"Trusted are {', '.join(self.ids)}. {_SIGN_AGAIN}")
        if kind != _PAYLOAD or not _verified(self._keys[key], value, kind, payload):
            raise DataContractError(f"The signature of {named} is not valid: it was altered", _SIGN_AGAIN)
        try:
            return _digests(json.loads(payload))
        except (ValueError, KeyError, TypeError) as error:
            raise DataContractError(f"The signature of {named} cannot be read: {error!r}", _SIGN_AGAIN) from error


_SIGN_AGAIN = "Restore the artifacts from a backup; or, if you know that they are right, sign them: make sign."


@cache
def trusted_keys(text: str) -> TrustedKeys:
    """The keys of CT_TRUSTED_KEYS, read once."""
    return TrustedKeys(text)


def differences(signed: Digests, found: Digests) -> list[str]:
    """A sentence for each file that is not as it was signed."""
    problems = [f"{name} was removed" for name in sorted(signed.keys() - found.keys())]
    problems += [f"{name} was added" for name in sorted(found.keys() - signed.keys())]
    both = sorted(signed.keys() & found.keys())
    return problems + [f"{name} was changed" for name in both if signed[name] != found[name]]


def sign(folder: Path, key_file: str, password: str | None = None) -> bytes:
    """The signature of all files in `folder`. Raises ConfigError when the private key cannot be used."""
    from model_signing import hashing, signing

    everything = hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)
    secret: Any = None if password is None else password.encode()
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=key_file, password=secret)
    except (OSError, ValueError, TypeError) as error:
        hint = "It must be a PEM file with a private key on the curve P-256, P-384 or P-521. See docs/security.md."
        raise ConfigError(f"The key of CT_SIGNING_KEY_FILE, {key_file}, cannot be used: {error}", hint) from error
    with TemporaryDirectory() as written:
        signer.set_hashing_config(everything).sign(folder, Path(written, SIGNATURE_FILE))
        return Path(written, SIGNATURE_FILE).read_bytes()


def key_of(signature: bytes) -> str:
    """The id of the key that `signature` names, shortened. It is not verified here."""
    return str(json.loads(signature)["verificationMaterial"]["publicKey"]["hint"])[:SHORT]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _public_key(text: str) -> tuple[str, "EllipticCurvePublicKey"]:
    """The id and the key. The id is what the library calls the hint: the SHA-256 of the PEM."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as formats
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    hint = "Write the public key as `openssl ec -in key.pem -pubout` prints it, see docs/security.md."
    try:
        der = base64.b64decode("".join(_PEM.sub("", text).split()), validate=True)
        key = formats.load_der_public_key(der)
    except (ValueError, binascii.Error, UnsupportedAlgorithm) as error:
        raise ConfigError(f"CT_TRUSTED_KEYS has a key that cannot be read: {text.strip()[:40]}…", hint) from error
    if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        raise ConfigError("CT_TRUSTED_KEYS has a key that is not on the curve P-256, P-384 or P-521", hint)
    pem = key.public_bytes(formats.Encoding.PEM, formats.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest(), key


def _verified(key: "EllipticCurvePublicKey", signature: bytes, kind: str, payload: bytes) -> bool:
    """Whether `key` signed the payload: DSSE v1, over its pre-authentication encoding."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

    encoded = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
    try:
        key.verify(signature, encoded, ECDSA(getattr(hashes, _CURVES[key.curve.name])()))
    except InvalidSignature:
        return False
    return True


def _digests(statement: Mapping[str, Any]) -> Digests:
    """The files of a statement. Raises ValueError, KeyError or TypeError when it is not of this format."""
    if (statement["_type"], statement["predicateType"]) != (_STATEMENT, _PREDICATE):
        raise ValueError(f"the statement is a {statement['predicateType']}")
    resources = statement["predicate"]["resources"]
    if any(each["algorithm"] != "sha256" for each in resources):
        raise ValueError("a file has a digest that is not SHA-256")
    digests = {str(each["name"]): str(each["digest"]) for each in resources}
    if len(digests) != len(resources):
        raise ValueError("a file is named twice")
    return digests


def _not_as_signed(named: str, problems: list[str]) -> DataContractError:
    return DataContractError(f"{named} is not as it was signed: {'; '.join(problems)}", _SIGN_AGAIN)
