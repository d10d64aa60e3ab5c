"""The ledger: order, idempotence, exclusive numbers, one chain per model that shows tampering."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cases import others_in_ci
from training import storage
from training.adapters.ledger import FIRST_HASH, Entry, Ledger
from training.contract.errors import DataContractError, InputError


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "ledger"))


def _file(tmp_path: Path, seq: int) -> Path:
    return tmp_path / "ledger" / "card_fraud" / f"{seq:08d}.json"


def test_entries_come_back_in_order_and_chained(ledger: Ledger) -> None:
    first = ledger.append("request", "card_fraud", {"trigger": "drift", "share": 0.5}, "a")
    second = ledger.append("decision", "card_fraud", {"granted": True}, "a")
    other = ledger.append("request", "churn", {}, "a")
    assert [e.seq for e in (first, second, other)] == [0, 1, 0]
    assert (first.previous_hash, other.previous_hash) == (FIRST_HASH, FIRST_HASH)
    assert second.previous_hash == first.hash
    assert ledger.entries("card_fraud") == [first, second]
    assert ledger.entries("card_fraud", "request") == [first]
    assert ledger.entries("churn") == [other]
    assert ledger.models() == ["card_fraud", "churn"]
    assert [ledger.problems(model) for model in ledger.models()] == [[], []]


def test_an_empty_ledger_is_whole(ledger: Ledger) -> None:
    assert ledger.entries("card_fraud") == []
    assert ledger.models() == []
    assert ledger.problems("card_fraud") == []


def test_the_same_key_is_appended_once(ledger: Ledger) -> None:
    first = ledger.append("rollout", "card_fraud", {"version": 1}, "run-1")
    assert ledger.append("rollout", "card_fraud", {"version": 2}, "run-1") == first
    assert len(ledger.entries("card_fraud")) == 1


def test_many_writers_lose_nothing_and_double_nothing(ledger: Ledger) -> None:
    keys = [f"{i % 20}" for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda key: ledger.append("verdict", "card_fraud", {"key": key}, key), keys))
    assert all(entry.body == {"key": key} for entry, key in zip(entries, keys, strict=True))
    assert sorted(e.key for e in ledger.entries("card_fraud")) == sorted(set(keys))
    assert ledger.problems("card_fraud") == []


def test_a_body_that_is_a_function_sees_all_entries_before_it(ledger: Ledger) -> None:
    def write(key: int) -> None:
        ledger.append("decision", "card_fraud", lambda history: {"before": len(history)}, str(key))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(30)))
    assert [e.body["before"] for e in ledger.entries("card_fraud")] == list(range(30))


@pytest.mark.parametrize("moments", others_in_ci([[17], [5, 17, 31]]))
def test_writers_killed_at_any_time_leave_a_whole_ledger(ledger: Ledger, tmp_path: Path, moments: list[int]) -> None:
    program = (
        "import sys; from training.adapters.ledger import Ledger\n"
        "ledger = Ledger(sys.argv[1])\n"
        "for i in range(100_000): ledger.append('request', 'm', {'i': i}, str(i)); print(i, flush=True)"
    )
    acknowledged = -1
    for milliseconds in moments:
        writer = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "ledger")], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(milliseconds / 1000)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        writer.wait()
        assert ledger.problems("m") == []
        count = len(ledger.entries("m"))
        assert count > acknowledged
        assert [e.body["i"] for e in ledger.entries("m")] == list(range(count))
    ledger.append("request", "m", {}, "afterwards")
    assert ledger.problems("m") == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda entry: entry["body"].update(granted=True), "00000001.json: it was altered"),
        (lambda entry: entry.update(kind="rollout"), "00000001.json: it was altered"),
        (lambda entry: entry.update(seq=7), "numbered 7"),
        (lambda entry: entry.pop("hash"), "00000001.json: it was altered"),
        (lambda entry: entry.update(extra=1), "not an entry"),
    ],
)
def test_a_changed_entry_breaks_the_chain(ledger: Ledger, tmp_path: Path, change, complaint: str) -> None:
    for key in "abc":
        ledger.append("decision", "card_fraud", {"granted": False}, key)
    entry = json.loads(_file(tmp_path, 1).read_text())
    change(entry)
    _file(tmp_path, 1).write_text(json.dumps(entry))
    assert [complaint in problem for problem in ledger.problems("card_fraud")] == [True]


def test_a_rewritten_entry_does_not_fit_the_next(ledger: Ledger, tmp_path: Path) -> None:
    for key in "abc":
        ledger.append("decision", "card_fraud", {"granted": False}, key)
    forged = ledger.entries("card_fraud")[1].model_copy(update={"body": {"granted": True}}).sealed()
    _file(tmp_path, 1).write_text(forged.model_dump_json())
    [problem] = ledger.problems("card_fraud")
    assert problem.endswith("00000002.json: it does not follow the entry before it")


def test_a_missing_entry_is_noticed_before_anything_is_written(ledger: Ledger, tmp_path: Path) -> None:
    for key in "abc":
        ledger.append("decision", "card_fraud", {}, key)
    _file(tmp_path, 1).unlink()
    with pytest.raises(DataContractError, match=r"00000001.json: it is missing"):
        ledger.append("decision", "card_fraud", {}, "d")
    assert len(list((tmp_path / "ledger" / "card_fraud").glob("*.json"))) == 2


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_a_body_that_is_not_json_is_refused(ledger: Ledger, value: object) -> None:
    with pytest.raises(InputError, match="'verdict' is not JSON"):
        ledger.append("verdict", "card_fraud", {"value": value}, "a")
    assert ledger.entries("card_fraud") == []


def test_every_altered_and_missing_entry_is_named(ledger: Ledger, tmp_path: Path) -> None:
    for number in range(6):
        ledger.append("decision", "card_fraud", {"granted": False}, str(number))
    ledger.append("decision", "churn", {}, "a")
    _file(tmp_path, 1).unlink()
    altered = json.loads(_file(tmp_path, 4).read_text())
    _file(tmp_path, 4).write_text(json.dumps(altered | {"key": "other"}))
    assert [problem.partition("card_fraud/")[2] for problem in ledger.problems("card_fraud")] == [
        "00000001.json: it is missing",
        "00000004.json: it was altered, its content does not match its hash",
    ]
    assert ledger.problems("churn") == []


def test_an_entry_of_another_model_is_out_of_place(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append("decision", "churn", {}, "a")
    ledger.append("decision", "card_fraud", {}, "a")
    _file(tmp_path, 0).write_text((tmp_path / "ledger" / "churn" / "00000000.json").read_text())
    assert "belongs to model 'churn'" in ledger.problems("card_fraud")[0]


def test_a_reader_reads_each_entry_once(ledger: Ledger, tmp_path: Path) -> None:
    for key in "ab":
        ledger.append("stage", "card_fraud", {}, key)
    reader = Ledger(str(tmp_path / "ledger"))
    assert len(reader.entries("card_fraud")) == 2
    _file(tmp_path, 0).write_text("a second look does not read this")
    ledger.append("stage", "card_fraud", {}, "c")
    assert [entry.key for entry in reader.entries("card_fraud")] == ["a", "b", "c"]


@pytest.fixture
def chain_for_all(tmp_path: Path) -> str:
    """A ledger of Perennial 0.1: three entries of two models in one chain. Returns the hash of the last."""
    previous = FIRST_HASH
    for seq, (model, key) in enumerate([("card_fraud", "a"), ("churn", "b"), ("card_fraud", "c")]):
        entry = Entry(
            seq=seq, kind="request", model=model, key=key, body={}, at=datetime.now(UTC), previous_hash=previous
        ).sealed()
        storage.write(str(tmp_path / "ledger" / f"{seq:08d}.json"), entry.model_dump_json().encode())
        previous = entry.hash
    return previous


def test_a_model_keeps_the_entries_from_the_time_of_one_chain_for_all(
    ledger: Ledger, tmp_path: Path, chain_for_all: str
) -> None:
    assert ledger.append("request", "card_fraud", {}, "a").seq == 0, "it is there already"
    first = ledger.append("request", "card_fraud", {}, "d")
    assert (first.seq, first.previous_hash) == (0, chain_for_all)
    assert [entry.key for entry in ledger.entries("card_fraud")] == ["a", "c", "d"]
    assert ledger.problems("card_fraud") == []
    # No entry after it refers to it, but it is known to have been there.
    (tmp_path / "ledger" / "00000002.json").unlink()
    assert ["00000002.json: it is missing" in problem for problem in ledger.problems("card_fraud")] == [True]
    (tmp_path / "ledger" / "earlier.json").unlink()
    assert "does not follow" in ledger.problems("card_fraud")[0]


def test_a_missing_entry_of_the_chain_for_all_stops_only_its_model(tmp_path: Path, chain_for_all: str) -> None:
    folder = str(tmp_path / "ledger")
    assert Ledger(folder).append("request", "churn", {}, "d").seq == 0
    (tmp_path / "ledger" / "00000002.json").unlink()
    with pytest.raises(DataContractError, match=r"00000002.json: it is missing"):
        Ledger(folder).append("request", "card_fraud", {}, "d")
    with pytest.raises(DataContractError, match=r"00000002.json: it is missing"):
        Ledger(folder).entries("card_fraud")
    Ledger(folder).append("request", "churn", {}, "e")
    assert [entry.key for entry in Ledger(folder).entries("churn")] == ["b", "d", "e"]
    # A model that is new begins where the whole chain ended.
    assert Ledger(folder).append("request", "new", {}, "a").previous_hash == chain_for_all


def test_a_missing_entry_stops_every_model_when_nobody_knows_whose_it_was(tmp_path: Path, chain_for_all: str) -> None:
    (tmp_path / "ledger" / "00000001.json").unlink()
    for model in ("card_fraud", "churn"):
        with pytest.raises(DataContractError, match=r"00000001.json: it is missing"):
            Ledger(str(tmp_path / "ledger")).entries(model)
    assert not (tmp_path / "ledger" / "earlier.json").exists()
