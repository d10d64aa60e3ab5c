"""Key pairs for signing model versions."""

import base64
from pathlib import Path

from cryptography.hazmat.primitives import serialization as formats
from cryptography.hazmat.primitives.asymmetric import ec


def key_pair(folder: Path, name: str = "signing-key", curve: ec.EllipticCurve | None = None) -> tuple[str, str]:
    """A new private key as a PEM file, and the public key as one line: CT_SIGNING_KEY_FILE and CT_TRUSTED_KEYS."""
    key, file = ec.generate_private_key(curve or ec.SECP256R1()), folder / f"{name}.pem"
    kind = formats.PrivateFormat.PKCS8
    file.write_bytes(key.private_bytes(formats.Encoding.PEM, kind, formats.NoEncryption()))
    public = key.public_key().public_bytes(formats.Encoding.DER, formats.PublicFormat.SubjectPublicKeyInfo)
    return str(file), base64.b64encode(public).decode()
