"""The ledger: order, idempotence, exclusive numbers, a chain that shows tampering."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from training.adapters.ledger import FIRST_HASH, Ledger
from training.contract.errors import DataContractError, InputError


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "ledger"))


def _file(tmp_path: Path, seq: int) -> Path:
    return tmp_path / "ledger" / f"{seq:08d}.json"


def test_entries_come_back_in_order_and_chained(ledger: Ledger) -> None:
    first = ledger.append("request", "card_fraud", {"trigger": "drift", "share": 0.5}, "a")
    second = ledger.append("decision", "card_fraud", {"granted": True}, "a")
    other = ledger.append("request", "churn", {}, "a")
    assert [e.seq for e in (first, second, other)] == [0, 1, 2]
    assert first.previous_hash == FIRST_HASH
    assert (second.previous_hash, other.previous_hash) == (first.hash, second.hash)
    assert ledger.entries() == [first, second, other]
    assert ledger.entries(model="card_fraud", kind="request") == [first]
    assert ledger.verify() == 3


def test_an_empty_ledger_is_whole(ledger: Ledger) -> None:
    assert ledger.entries() == []
    assert ledger.verify() == 0


def test_the_same_key_is_appended_once(ledger: Ledger) -> None:
    first = ledger.append("rollout", "card_fraud", {"version": 1}, "run-1")
    assert ledger.append("rollout", "card_fraud", {"version": 2}, "run-1") == first
    assert len(ledger.entries()) == 1


def test_many_writers_lose_nothing_and_double_nothing(ledger: Ledger) -> None:
    keys = [f"{i % 20}" for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        entries = list(pool.map(lambda key: ledger.append("verdict", "card_fraud", {"key": key}, key), keys))
    assert all(entry.body == {"key": key} for entry, key in zip(entries, keys, strict=True))
    assert sorted(e.key for e in ledger.entries()) == sorted(set(keys))
    assert ledger.verify() == 20


def test_a_body_that_is_a_function_sees_all_entries_before_it(ledger: Ledger) -> None:
    def write(key: int) -> None:
        ledger.append("decision", "card_fraud", lambda history: {"before": len(history)}, str(key))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(30)))
    assert [e.body["before"] for e in ledger.entries()] == list(range(30))


def test_writers_killed_at_any_time_leave_a_whole_ledger(ledger: Ledger, tmp_path: Path) -> None:
    program = (
        "import sys; from training.adapters.ledger import Ledger\n"
        "ledger = Ledger(sys.argv[1])\n"
        "for i in range(100_000): ledger.append('request', 'm', {'i': i}, str(i)); print(i, flush=True)"
    )
    acknowledged = -1
    for milliseconds in (5, 17, 31):
        writer = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "ledger")], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(milliseconds / 1000)
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        writer.wait()
        count = ledger.verify()
        assert count > acknowledged
        assert [e.body["i"] for e in ledger.entries()] == list(range(count))
    ledger.append("request", "m", {}, "afterwards")
    ledger.verify()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda entry: entry["body"].update(granted=True), "00000001.json: its content does not match its hash"),
        (lambda entry: entry.update(kind="rollout"), "00000001.json: its content does not match its hash"),
        (lambda entry: entry.update(seq=7), "numbered 7"),
        (lambda entry: entry.pop("hash"), "00000001.json: its content does not match its hash"),
        (lambda entry: entry.update(extra=1), "not an entry"),
    ],
)
def test_a_changed_entry_breaks_the_chain(ledger: Ledger, tmp_path: Path, change, complaint: str) -> None:
    for key in "abc":
        ledger.append("decision", "card_fraud", {"granted": False}, key)
    entry = json.loads(_file(tmp_path, 1).read_text())
    change(entry)
    _file(tmp_path, 1).write_text(json.dumps(entry))
    with pytest.raises(DataContractError, match=complaint):
        ledger.verify()


def test_a_rewritten_entry_does_not_fit_the_next(ledger: Ledger, tmp_path: Path) -> None:
    for key in "abc":
        ledger.append("decision", "card_fraud", {"granted": False}, key)
    forged = ledger.entries()[1].model_copy(update={"body": {"granted": True}}).sealed()
    _file(tmp_path, 1).write_text(forged.model_dump_json())
    with pytest.raises(DataContractError, match=r"00000002.json: it does not follow"):
        ledger.verify()


def test_a_missing_entry_is_noticed_before_anything_is_written(ledger: Ledger, tmp_path: Path) -> None:
    for key in "abc":
        ledger.append("decision", "card_fraud", {}, key)
    _file(tmp_path, 1).unlink()
    with pytest.raises(DataContractError, match=r"00000001.json: it is missing"):
        ledger.append("decision", "card_fraud", {}, "d")
    assert len(list((tmp_path / "ledger").glob("*.json"))) == 2


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_a_body_that_is_not_json_is_refused(ledger: Ledger, value: object) -> None:
    with pytest.raises(InputError, match="'verdict' is not JSON"):
        ledger.append("verdict", "card_fraud", {"value": value}, "a")
    assert ledger.entries() == []
