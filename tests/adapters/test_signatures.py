"""Signatures of artifacts: what we verify is what OpenSSF's library signs and verifies, and every change is named."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from testing.signing_keys import key_pair
from tests.adapters.tiny_artifact import make_artifact
from training import atomic
from training.adapters.signatures import TrustedKeys, sign
from training.contract.artifact import SIGNATURE_FILE
from training.contract.errors import ConfigError, DataContractError


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, TrustedKeys]:
    """A folder with an artifact and its signature, and the key of it."""
    private, public = key_pair(tmp_path)
    make_artifact(tmp_path / "served")
    (tmp_path / "served" / SIGNATURE_FILE).write_bytes(sign(tmp_path / "served", private))
    return tmp_path / "served", TrustedKeys(public)


def test_what_was_signed_passes(signed: tuple[Path, TrustedKeys]) -> None:
    folder, keys = signed
    assert set(keys.check(folder, "it")) == {"model.onnx", "metadata.json"}


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_the_library_verifies_the_same(tmp_path: Path, curve: ec.EllipticCurve) -> None:
    """Ours and OpenSSF's agree about what is as it was signed, on all curves."""
    from model_signing import verifying

    private, public = key_pair(tmp_path, curve=curve)
    make_artifact(tmp_path / "served")
    signature = tmp_path / SIGNATURE_FILE
    signature.write_bytes(sign(tmp_path / "served", private))
    pem = tmp_path / "public.pem"
    subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", pem], check=True, capture_output=True)
    theirs = verifying.Config().use_elliptic_key_verifier(public_key=pem)
    theirs.verify(tmp_path / "served", signature)
    for text in (public, pem.read_text()):
        assert set(TrustedKeys(text).signed(signature.read_bytes(), "it")) == {"model.onnx", "metadata.json"}
    (tmp_path / "served" / "more.bin").write_text("more")
    with pytest.raises(ValueError, match=r"more\.bin"):
        verifying.Config().use_elliptic_key_verifier(public_key=pem).verify(tmp_path / "served", signature)


def _flip(file: str, at: int = -1) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        content = bytearray((folder / file).read_bytes())
        content[at] ^= 1
        (folder / file).write_bytes(content)

    return attack


ATTACKS = {
    "model.onnx was changed": _flip("model.onnx"),
    "metadata.json was changed": _flip("metadata.json", 40),
    "golden.parquet was added": lambda folder: (folder / "golden.parquet").write_bytes(b"rows"),
    # The library's own verification leaves it out.
    ".gitignore was added": lambda folder: (folder / ".gitignore").write_bytes(b""),
    "more/file was added": lambda folder: atomic.write(folder / "more" / "file", b""),
    "metadata.json was removed": lambda folder: (folder / "metadata.json").unlink(),
}


@pytest.mark.parametrize("named", ATTACKS)
def test_every_change_is_named(signed: tuple[Path, TrustedKeys], named: str) -> None:
    folder, keys = signed
    ATTACKS[named](folder)
    with pytest.raises(DataContractError) as error:
        keys.check(folder, "Version 3 of tiny")
    assert str(error.value.message) == f"Version 3 of tiny is not as it was signed: {named}"


def test_without_a_signature_it_is_refused(signed: tuple[Path, TrustedKeys]) -> None:
    folder, keys = signed
    (folder / SIGNATURE_FILE).unlink()
    with pytest.raises(DataContractError, match="it is not signed, and CT_TRUSTED_KEYS requires it"):
        keys.check(folder, "it", "do this")


def test_another_key_is_refused_and_one_of_several_suffices(signed: tuple[Path, TrustedKeys], tmp_path: Path) -> None:
    folder, keys = signed
    _, other = key_pair(tmp_path, "other")
    with pytest.raises(DataContractError, match=rf"signed with the key {keys.ids[0]}, which is not among"):
        TrustedKeys(other).check(folder, "it")
    private, public = key_pair(tmp_path, "newest")
    (folder / SIGNATURE_FILE).unlink()
    (folder / SIGNATURE_FILE).write_bytes(sign(folder, private))
    TrustedKeys(f"{other}, {public}").check(folder, "it")


def _edited(change: Callable[[dict, dict], None]) -> Callable[[bytes], bytes]:
    """An attack on the bundle: `change(bundle, statement)`; the statement is put back into its envelope."""

    def attack(signature: bytes) -> bytes:
        bundle = json.loads(signature)
        envelope = bundle["dsseEnvelope"]
        statement = json.loads(base64.b64decode(envelope["payload"]))
        change(bundle, statement)
        if "payload" in envelope:
            envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
        return json.dumps(bundle).encode()

    return attack


FORGERIES: dict[str, Callable[[bytes], bytes]] = {
    "other digest": _edited(lambda _, made: made["predicate"]["resources"][0].update(digest="0" * 64)),
    "one file less": _edited(lambda _, made: made["predicate"]["resources"].pop()),
    "no signature in it": _edited(lambda bundle, _: bundle["dsseEnvelope"].update(signatures=[])),
    "empty signature": _edited(lambda bundle, _: bundle["dsseEnvelope"]["signatures"][0].update(sig="")),
    "other payload type": _edited(lambda bundle, _: bundle["dsseEnvelope"].update(payloadType="text/plain")),
    "no payload": _edited(lambda bundle, _: bundle["dsseEnvelope"].pop("payload")),
    "not JSON": lambda signature: signature[:-20],
    "a list": lambda _: b"[]",
    "empty": lambda _: b"",
    "not text": lambda _: b"\xff\xfe",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_signature_is_refused(signed: tuple[Path, TrustedKeys], forgery: str) -> None:
    folder, keys = signed
    file = folder / SIGNATURE_FILE
    file.write_bytes(FORGERIES[forgery](file.read_bytes()))
    with pytest.raises(DataContractError, match=r"signature of it (is not valid|cannot be read)"):
        keys.check(folder, "it")


def test_a_signature_by_another_key_that_claims_to_be_ours_is_refused(
    signed: tuple[Path, TrustedKeys], tmp_path: Path
) -> None:
    folder, keys = signed
    ours = json.loads((folder / SIGNATURE_FILE).read_bytes())["verificationMaterial"]
    private, _ = key_pair(tmp_path, "attacker")
    (folder / SIGNATURE_FILE).unlink()
    forged = json.loads(sign(folder, private)) | {"verificationMaterial": ours}
    (folder / SIGNATURE_FILE).write_text(json.dumps(forged))
    with pytest.raises(DataContractError, match="is not valid: it was altered"):
        keys.check(folder, "it")


def test_keys_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    for text in ("nonsense", "AAAA", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"):
        with pytest.raises(ConfigError, match="CT_TRUSTED_KEYS has a key that cannot be read"):
            TrustedKeys(text)
    _, odd = key_pair(tmp_path, curve=ec.SECP256K1())
    with pytest.raises(ConfigError, match="not on the curve P-256"):
        TrustedKeys(odd)
    make_artifact(tmp_path / "served")
    (tmp_path / "bad.pem").write_text("no key")
    for name in ("bad.pem", "missing.pem"):
        with pytest.raises(ConfigError, match=rf"CT_SIGNING_KEY_FILE, .*{name}, cannot be used"):
            sign(tmp_path / "served", str(tmp_path / name))


def test_a_key_with_a_password(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path)
    locked = tmp_path / "locked.pem"
    command = ["openssl", "pkcs8", "-topk8", "-in", private, "-out", locked, "-passout", "pass:open it"]
    subprocess.run(command, check=True, capture_output=True)
    folder = tmp_path / "served"
    make_artifact(folder)
    signature = sign(folder, str(locked), "open it")
    TrustedKeys(public).signed(signature, "it")
    for password in (None, "wrong"):
        with pytest.raises(ConfigError, match=r"locked\.pem, cannot be used"):
            sign(folder, str(locked), password)


def test_verifying_imports_neither_the_library_nor_sigstore() -> None:
    """Serving verifies each load. The library takes a second to import, with Sigstore's clients."""
    code = (
        "import sys; from training.adapters.signatures import TrustedKeys; TrustedKeys('');"
        "print(*sorted({'model_signing', 'sigstore', 'tuf', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
