"""The ledger: an append-only folder of decisions, where each entry carries the hash of the one before.

One file per entry, `00000042.json`, created exclusively: of two writers one takes the number, the other looks again. An
entry is never changed, so a changed or a missing one breaks the chain, which `verify` finds. (Entries cut off at the
end leave a shorter chain that is whole: keep the newest hash elsewhere where that matters.)
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from training.contract.base import Frozen
from training.contract.errors import ConfigError, DataContractError, InputError, TransientError

FIRST_HASH = "0" * 64
#: Writers that may get in between before we give up; each time somebody made progress.
ATTEMPTS = 100

Body = dict[str, Any]


class Entry(Frozen):
    """One line of the ledger. `at` is for readers: no decision depends on it."""

    seq: int
    kind: str
    model: str
    #: What makes the entry the same entry when it is appended again; the id by which others name it.
    key: str
    body: Body
    at: datetime
    previous_hash: str
    #: SHA-256 of the canonical JSON of all the other fields.
    hash: str = ""

    def sealed(self) -> Self:
        """The same entry with its hash."""
        fields = self.model_dump(mode="json", exclude={"hash"})
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return self.model_copy(update={"hash": hashlib.sha256(canonical.encode()).hexdigest()})


class Ledger:
    """The ledger in the local folder `uri`, made when the first entry is written."""

    def __init__(self, uri: str) -> None:
        if "://" in uri and not uri.startswith("file://"):
            raise ConfigError(f"The ledger cannot be kept at {uri}", hint="Set CT_LEDGER_URI to a local folder.")
        self._folder = Path(uri.removeprefix("file://"))

    def append(self, kind: str, model: str, body: Body | Callable[[list[Entry]], Body], key: str) -> Entry:
        """Append an entry and return it; when (kind, model, key) is there already, return that one unchanged.

        `body` may be a function of all entries before the new one. It is called again whenever another writer got in
        first, so an entry is always decided on exactly the history that precedes it.
        Raises InputError when the body is not JSON, TransientError when other writers keep getting in first.
        """
        for _ in range(ATTEMPTS):
            history = self.entries()
            for entry in history:
                if (entry.kind, entry.model, entry.key) == (kind, model, key):
                    return entry
            entry = Entry(
                seq=len(history),
                kind=kind,
                model=model,
                key=key,
                body=_as_json(body(history) if callable(body) else body, kind),
                at=datetime.now(UTC),
                previous_hash=history[-1].hash if history else FIRST_HASH,
            ).sealed()
            if self._create(_file_name(entry.seq), entry.model_dump_json(indent=2)):
                return entry
        raise TransientError(f"{ATTEMPTS} other writers got in first at the ledger {self._folder}", hint="Retry.")

    def claim(self, kind: str, model: str, body: Body, key: str) -> Entry:
        """Append an entry about a version. Raises TransientError when the one that is there is about another."""
        entry = self.append(kind, model, body, key)
        if entry.body["version"] != body["version"]:
            raise TransientError(f"Another {kind} of {model} is under way: {entry.body}", hint="Retry when it ended.")
        return entry

    def entries(self, model: str | None = None, kind: str | None = None) -> list[Entry]:
        """All entries, oldest first; only those of `model` and of `kind` where given.

        Raises DataContractError when an entry is missing or cannot be read.
        """
        entries = [self._read(name, seq) for seq, name in enumerate(self._names())]
        return [e for e in entries if model in (None, e.model) and kind in (None, e.kind)]

    def verify(self) -> int:
        """Check the whole chain; the number of entries in it. Raises DataContractError that names the broken entry."""
        previous = FIRST_HASH
        entries = self.entries()
        for entry in entries:
            if entry.hash != entry.sealed().hash:
                raise _broken(self._folder / _file_name(entry.seq), "its content does not match its hash")
            if entry.previous_hash != previous:
                raise _broken(self._folder / _file_name(entry.seq), "it does not follow the entry before it")
            previous = entry.hash
        return len(entries)

    def _read(self, name: str, seq: int) -> Entry:
        path = self._folder / name
        if name != _file_name(seq):
            raise _broken(self._folder / _file_name(seq), "it is missing")
        try:
            entry = Entry.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise _broken(path, f"it is not an entry: {error.errors()[0]['msg']}") from error
        if entry.seq != seq:
            raise _broken(path, f"it is numbered {entry.seq} inside")
        return entry

    # An object store needs these two: a sorted listing, and "create unless it exists" (If-None-Match: *).

    def _names(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob("[0-9]*.json"))

    def _create(self, name: str, content: str) -> bool:
        """Create the file whole, on disk; False when the name is taken."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self._folder, prefix=f".{name}.") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            try:
                os.link(file.name, self._folder / name)
            except FileExistsError:
                return False
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return True


def _file_name(seq: int) -> str:
    return f"{seq:08d}.json"


def _as_json(body: Body, kind: str) -> Body:
    try:
        return json.loads(json.dumps(body, allow_nan=False))
    except (TypeError, ValueError) as error:
        hint = "Use model_dump(mode='json'), and None for what is not a number."
        raise InputError(f"The body of a ledger entry of kind {kind!r} is not JSON: {error}", hint) from error


def _broken(path: Path, why: str) -> DataContractError:
    hint = "Nothing is written to a ledger that is not whole: restore the folder from a backup."
    return DataContractError(f"The ledger is broken at {path}: {why}", hint)
