"""Authentication: API keys from a file of hashes, or a header that a gateway sets after its own check.

The file has a line per key, `<role> <name> <SHA-256 of the key, hex>`. Roles are `predict` and `admin`; an admin may do
everything. Several keys are valid at once: to rotate one, add the new key, change the callers, remove the old line. The
file is read again when it changes. A plain SHA-256 is enough: the keys are 256 random bits, so they cannot be guessed
as passwords can, and a slow hash would cost more than a prediction.
"""

import hashlib
import ipaddress
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from serving.schema import BadRequest, Problem
from training.contract.errors import ConfigError
from training.settings import ServingSettings

Role = Literal["predict", "admin"]

#: Between two checks whether the file has changed.
CHECK_SECONDS = 1.0

log = logging.getLogger("perennial")


class Auth:
    """Raises ConfigError when the settings name a file that cannot be read, or peers that are not networks."""

    def __init__(self, settings: ServingSettings) -> None:
        self._path = Path(settings.serving_keys_file) if settings.serving_keys_file else None
        self._header = settings.serving_trusted_header.lower().encode()
        try:
            peers = [part.strip() for part in settings.serving_trusted_peers.split(",") if part.strip()]
            self._peers = [ipaddress.ip_network(peer) for peer in peers]
        except ValueError as error:
            raise ConfigError(f"CT_SERVING_TRUSTED_PEERS: {error}", hint="Addresses or networks.") from error
        self._keys: Mapping[str, tuple[Role, str]] = {}
        self._read: object = None
        self._next = 0.0
        if self._path is not None:
            self._keys, self._read = read_keys(self._path), _stamp(self._path)

    def check(self, headers: Mapping[bytes, bytes], peer: str | None, role: Role = "predict") -> None:
        """Raises BadRequest: 401 when the caller is unknown, 403 when it may not act as `role`.

        If the settings name neither keys nor a header, everybody may predict, and nobody is an admin.
        """
        if self._path is not None and time.monotonic() >= self._next:
            self._reload()
        found = self._role(headers, peer)
        if found == "admin" or found == role:
            return
        if found is None and (role == "predict" or self._path is not None):
            raise BadRequest(401, Problem(error="A valid API key is needed: Authorization: Bearer <key>"))
        raise BadRequest(403, Problem(error="This needs the API key of an admin"))

    def _role(self, headers: Mapping[bytes, bytes], peer: str | None) -> Role | None:
        given = headers.get(b"authorization", b"")
        if self._path is not None and given[:7].lower() == b"bearer ":
            known = self._keys.get(hashlib.sha256(given[7:].strip()).hexdigest())
            if known is not None:
                return known[0]
        if self._header and headers.get(self._header) and self._trusts(peer):
            return "predict"
        return None if self._path is not None or self._header else "predict"

    def _trusts(self, peer: str | None) -> bool:
        if not self._peers:
            return True
        try:
            address = ipaddress.ip_address(peer or "")
        except ValueError:
            return False
        return any(address in network for network in self._peers)

    def _reload(self) -> None:
        assert self._path is not None
        self._next = time.monotonic() + CHECK_SECONDS
        try:
            stamp = _stamp(self._path)
            if stamp == self._read:
                return
            self._keys, self._read = read_keys(self._path), stamp
            log.info("API keys read again: %s", ", ".join(f"{name} ({role})" for role, name in self._keys.values()))
        except (OSError, ConfigError) as error:
            log.error("The API keys could not be read again, the previous ones stay valid: %s", error)


def read_keys(path: Path) -> dict[str, tuple[Role, str]]:
    """Hash → (role, name). Raises ConfigError for a file that cannot be read, or a line that is not a key."""
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"CT_SERVING_KEYS_FILE cannot be read: {error}", hint="`make api-key` writes it.") from error
    keys: dict[str, tuple[Role, str]] = {}
    for number, line in enumerate(lines, 1):
        parts = line.split("#")[0].split()
        if not parts:
            continue
        if len(parts) != 3 or parts[0] not in ("predict", "admin") or not _is_hash(parts[2]):
            hint = "A line is: predict|admin, a name, and the key's SHA-256 in hex."
            raise ConfigError(f"Line {number} of {path} is not an API key", hint)
        keys[parts[2].lower()] = ("admin" if parts[0] == "admin" else "predict", parts[1])
    return keys


def _is_hash(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdefABCDEF" for c in text)


def _stamp(path: Path) -> tuple[int, int, int]:
    found = os.stat(path)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
