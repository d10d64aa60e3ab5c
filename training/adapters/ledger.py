"""The ledger: an append-only record of decisions, local or in an object store, with one hash chain per model.

One file per entry, `<model>/00000042.json`, created exclusively: of two writers one takes the number, the other looks
again. Each entry carries the hash of the entry before it. An entry is never changed, so a changed or a missing one
breaks the chain, and `problems` names it. A chain whose end was cut off, or that was rewritten as a whole, has no wrong
hash. So the registry keeps with every version the `head` of that time, and `anchor_problem` compares.

Perennial 0.1 kept the entries of all models in one chain, in the ledger's folder itself. That chain is read, never
written: its entries come first in the history of their model. The file `earlier.json`, written once, says which model
each belongs to, so that a missing one stops only its model.
"""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import ValidationError

from training import storage
from training.contract.base import Frozen
from training.contract.errors import DataContractError, InputError, TransientError
from training.contract.life import ENTRY_NAME
from training.domain.identity import digest
from training.layout import mark_if_new

FIRST_HASH = "0" * 64
#: Writers that may get in between before we give up; each time somebody made progress.
ATTEMPTS = 100
#: The name, here, of the chain in the ledger's folder itself.
EARLIER = ""
#: The file that says which entries of that chain belong to which model.
OWNERS = "earlier.json"

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
        return self.model_copy(update={"hash": digest(fields, 64)})


class _Earlier(Frozen):
    """The content of `earlier.json`."""

    #: Model → the numbers of its entries, ascending.
    entries: dict[str, list[int]]
    #: The hash of the last entry of the chain.
    last: str

    @property
    def count(self) -> int:
        return sum(len(numbers) for numbers in self.entries.values())


class Ledger:
    """The ledger in the folder `uri` (training/storage.py). A model's chain begins with its first entry.

    An object remembers the entries that it has read, which never change: a second look reads only what is new.
    """

    def __init__(self, uri: str) -> None:
        self._folder = uri
        self._read_so_far: dict[str, list[Entry]] = {}
        self._earlier_of: dict[str, tuple[list[Entry], str]] = {}
        self._lock = threading.Lock()

    def append(self, kind: str, model: str, body: Body | Callable[[list[Entry]], Body], key: str) -> Entry:
        """Append an entry to the chain of `model` and return it; one with this kind and key is returned unchanged.

        `body` may be a function of all the model's entries before the new one. It is called again whenever another
        writer got in first, so an entry is always decided on exactly the history that precedes it.
        Raises InputError when the body is not JSON, TransientError when other writers keep getting in first.
        """
        for _ in range(ATTEMPTS):
            (before, last), chain = self._earlier(model), self._entries(model)
            history = [*before, *chain]
            for entry in history:
                if (entry.kind, entry.key) == (kind, key):
                    return entry
            entry = Entry(
                seq=len(chain),
                kind=kind,
                model=model,
                key=key,
                body=_as_json(body(history) if callable(body) else body, kind),
                at=datetime.now(UTC),
                previous_hash=chain[-1].hash if chain else last,
            ).sealed()
            if not history:
                mark_if_new(self._folder)
            self._keep_owners()
            if storage.create(self._uri(model, entry.seq), entry.model_dump_json(indent=2).encode()):
                return entry
        raise TransientError(f"{ATTEMPTS} other writers got in first at {self._folder}/{model}", hint="Retry.")

    def claim(self, kind: str, model: str, body: Body, key: str) -> Entry:
        """Append an entry about a version. Raises TransientError when the one that is there is about another."""
        entry = self.append(kind, model, body, key)
        if entry.body["version"] != body["version"]:
            raise TransientError(f"Another {kind} of {model} is under way: {entry.body}", hint="Retry when it ended.")
        return entry

    def entries(self, model: str, kind: str | None = None) -> list[Entry]:
        """The entries of `model`, oldest first; only those of `kind` where given.

        Raises DataContractError when an entry is missing or cannot be read.
        """
        found = [*self._earlier(model)[0], *self._entries(model)]
        return [entry for entry in found if kind in (None, entry.kind)]

    def head(self, model: str) -> str:
        """`<number>:<hash>` of the newest entry of the model's own chain; empty when it has none.

        Kept elsewhere it is an anchor: who rewrites the chain, or cuts off its end, cannot rewrite the anchor.
        """
        chain = self._entries(model)
        return f"{chain[-1].seq}:{chain[-1].hash}" if chain else ""

    def models(self) -> list[str]:
        """The models that have a chain, sorted."""
        return storage.folders(self._folder)

    def problems(self, model: str) -> list[str]:
        """What is wrong with the chain of `model` and the chain before it: a line per altered or missing entry."""
        owners = self._owners()
        earlier, said = self._problems(EARLIER, {FIRST_HASH}, owners.count if owners else 0)
        begins = {owners.last if owners else earlier or FIRST_HASH}
        return [*said, *self._problems(model, begins)[1]]

    def anchor_problem(self, model: str, anchor: str) -> str | None:
        """How the chain of `model`, whole in itself, differs from `anchor` (see `head`); None when they agree."""
        number, _, hash_ = anchor.partition(":")
        chain = self._entries(model)
        if int(number) >= len(chain):
            return f"{self._uri(model, int(number))} is missing: the end of the chain was removed, or restored older"
        if chain[int(number)].hash != hash_:
            return f"{self._uri(model, int(number))} has another hash: the chain was written anew from there or before"
        return None

    def _problems(self, chain: str, begins: set[str], count: int = 0) -> tuple[str | None, list[str]]:
        """The hash of the last entry of `chain`, None when it has none, and what is wrong with its entries.

        `count`: how many entries it had at least.
        """
        numbers = [int(name.removesuffix(".json")) for name in self._names(chain)]
        previous, last, found = begins, None, list[str]()
        for seq in range(max([count, *(number + 1 for number in numbers)])):
            try:
                entry = self._read(chain, seq)
            except DataContractError as error:
                found.append(error.message)
                previous = set()  # what comes next cannot be held against it
                continue
            if entry.hash != entry.sealed().hash:
                found.append(f"{self._uri(chain, seq)}: it was altered, its content does not match its hash")
            elif previous and entry.previous_hash not in previous:
                found.append(f"{self._uri(chain, seq)}: it does not follow the entry before it")
            elif chain != EARLIER and entry.model != chain:
                found.append(f"{self._uri(chain, seq)}: it belongs to model {entry.model!r}")
            previous, last = {entry.hash} - {""}, entry.hash
        return last, found

    def _earlier(self, model: str) -> tuple[list[Entry], str]:
        """The entries of `model` in the chain of 0.1, and the hash that a model's own chain begins with."""
        if model not in self._earlier_of:
            owners = self._owners()
            if owners is None:
                found = self._entries(EARLIER)
                last = found[-1].hash if found else FIRST_HASH
                self._earlier_of[model] = [entry for entry in found if entry.model == model], last
            else:
                numbers = owners.entries.get(model, [])
                self._earlier_of[model] = [self._read(EARLIER, number) for number in numbers], owners.last
        return self._earlier_of[model]

    def _owners(self) -> _Earlier | None:
        uri = storage.join(self._folder, OWNERS)
        try:
            return None if (content := storage.read(uri)) is None else _Earlier.model_validate_json(content)
        except ValidationError as error:
            raise _broken(f"{uri}: {error.errors()[0]['msg']}") from error

    def _keep_owners(self) -> None:
        """Write the file OWNERS, unless there is no chain of 0.1, or the file is there already."""
        if found := self._read_so_far.get(EARLIER):
            owners: dict[str, list[int]] = {}
            for entry in found:
                owners.setdefault(entry.model, []).append(entry.seq)
            content = _Earlier(entries=owners, last=found[-1].hash).model_dump_json()
            storage.create(storage.join(self._folder, OWNERS), content.encode())

    def _entries(self, chain: str) -> list[Entry]:
        with self._lock:
            known, names = self._read_so_far.setdefault(chain, []), self._names(chain)
            for seq in range(max(len(names), len(known))):
                if names[seq : seq + 1] != [_file_name(seq)]:
                    raise _broken(f"{self._uri(chain, seq)}: it is missing")
            known += [self._read(chain, seq) for seq in range(len(known), len(names))]
            return list(known)

    def _read(self, chain: str, seq: int) -> Entry:
        uri = self._uri(chain, seq)
        content = storage.read(uri)
        if content is None:
            raise _broken(f"{uri}: it is missing")
        try:
            entry = Entry.model_validate_json(content)
        except ValidationError as error:
            raise _broken(f"{uri}: it is not an entry: {error.errors()[0]['msg']}") from error
        if entry.seq != seq:
            raise _broken(f"{uri}: it is numbered {entry.seq} inside")
        return entry

    def _names(self, chain: str) -> list[str]:
        folder = storage.join(self._folder, chain) if chain else self._folder
        return [file.name for file in storage.files(folder) if ENTRY_NAME.fullmatch(file.name)]

    def _uri(self, chain: str, seq: int) -> str:
        return storage.join(self._folder, *filter(None, [chain]), _file_name(seq))


def _file_name(seq: int) -> str:
    return f"{seq:08d}.json"


def _as_json(body: Body, kind: str) -> Body:
    try:
        return json.loads(json.dumps(body, allow_nan=False))
    except (TypeError, ValueError) as error:
        hint = "Use model_dump(mode='json'), and None for what is not a number."
        raise InputError(f"The body of a ledger entry of kind {kind!r} is not JSON: {error}", hint) from error


def _broken(problem: str) -> DataContractError:
    hint = "`make ledger-verify` names every broken entry. Restore them from a backup; nothing is written until then."
    return DataContractError(f"The ledger is broken at {problem}", hint)
