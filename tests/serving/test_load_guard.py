"""A load that ended the process is known after the restart; one that the process survived, or stopped, is forgotten."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from serving import load_guard
from serving.load_guard import LoadDied, LoadGuard
from serving.trials import TrialEnded, TrialProcess, Trials
from testing.onnx_attacks import endless_loop, hidden_fill, replace_model
from testing.waiting import eventually
from tests.adapters.tiny_artifact import make_artifact
from training.contract.errors import DataContractError
from training.settings import ROOT, Settings

DIGEST = "d" * 64


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrialProcess]:
    made = TrialProcess(Settings(home=tmp_path_factory.mktemp("process")))
    yield made
    made.close()


@pytest.fixture
def settings(tmp_path: Path, process: TrialProcess, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of services that try out versions in one process, which takes half a second of CPU to start."""

    class Shared(Trials):
        @contextmanager
        def process(self) -> Iterator[TrialProcess]:
            yield process

    monkeypatch.setattr(load_guard, "Trials", Shared)
    make_artifact(tmp_path / "artifact")
    return Settings(home=tmp_path)


def ends(settings: Settings, how: str = "die", digest: str = DIGEST) -> None:
    """A service that loads a version, and dies or stops in the middle of it."""

    def service() -> None:
        guard = LoadGuard(settings)

        def end() -> None:
            if how == "stop":
                guard.close()
            os._exit(9)

        guard.load("card_fraud", 7, digest, settings.home / "artifact", end)

    # Forked: it would take a second of CPU to import the same again.
    process = multiprocessing.get_context("fork").Process(target=service)
    process.start()
    process.join(300)
    assert process.exitcode == 9


def load(settings: Settings, digest: str = DIGEST, champion: bool = False) -> str:
    """What a restarted service says when it loads the version."""
    guard = LoadGuard(settings)
    try:
        return guard.load("card_fraud", 7, digest, settings.home / "artifact", lambda: "loaded", champion)
    except LoadDied as died:
        return died.message
    finally:
        guard.close()


def test_a_version_that_ended_the_service_is_refused_until_someone_allows_it(settings: Settings) -> None:
    ends(settings)
    for _ in range(2):
        assert load(settings).startswith("The service ended while it was loading the version, last at ")
    assert load(settings, "e" * 64) == "loaded"
    guard = LoadGuard(settings)
    with pytest.raises(LoadDied) as died:
        guard.check("card_fraud", DIGEST)
    assert "POST /admin/models/card_fraud/retry" in died.value.hint
    guard.retry("another")
    with pytest.raises(LoadDied):
        guard.check("card_fraud", DIGEST)
    guard.retry("card_fraud")
    guard.check("card_fraud", DIGEST)
    assert load(settings) == "loaded"


@pytest.mark.long
def test_a_version_that_was_loaded_here_is_refused_after_the_third_death_in_a_row(settings: Settings) -> None:
    """The service may be killed at any moment, and a champion is loaded at each start."""
    for _ in range(2):
        assert load(settings) == "loaded"
        ends(settings)
        ends(settings)
    assert load(settings) == "loaded"
    for _ in range(3):
        ends(settings)
    assert "3 times in a row" in load(settings)


@pytest.mark.long
def test_a_champion_that_was_never_loaded_here_is_refused_after_the_third_death_in_a_row(settings: Settings) -> None:
    """Other replicas have loaded it. A new one may be killed in its first load for many reasons."""
    ends(settings)
    assert load(settings).startswith("The service ended")
    assert load(settings, champion=True) == "loaded"
    for _ in range(3):
        ends(settings)
    assert "3 times in a row" in load(settings, champion=True)


def test_a_service_that_is_stopped_has_not_died(settings: Settings) -> None:
    ends(settings, "stop")
    assert load(settings) == "loaded"


def test_a_load_that_fails_is_not_a_death(settings: Settings) -> None:
    guard = LoadGuard(settings)
    with pytest.raises(ZeroDivisionError):
        guard.load("card_fraud", 7, DIGEST, settings.home / "artifact", lambda: 1 // 0)
    guard.close()
    assert load(settings) == "loaded"


def test_a_journal_that_cannot_be_read_forbids_nothing(settings: Settings) -> None:
    (Path(settings.serving)).mkdir(parents=True)
    Path(settings.serving, "loads.json").write_text('{"versions"')
    assert load(settings) == "loaded"


def test_what_was_loaded_before_is_not_tried_out_again(settings: Settings) -> None:
    assert load(settings) == "loaded"
    replace_model(settings.home / "artifact", endless_loop(2))
    assert load(settings) == "loaded"


def test_memory_is_limited_and_the_process_is_used_again(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, serving_load_mib=256)
    bad, good = tmp_path / "bad", tmp_path / "good"
    make_artifact(good)
    make_artifact(bad)
    replace_model(bad, hidden_fill(2))
    trials = Trials(settings)
    with (
        trials.process() as first,
        pytest.raises(DataContractError, match=r"cannot be scored.*Failed to allocate memory"),
    ):
        first.try_out(bad)
    with trials.process() as second:
        second.try_out(good)
    assert second is first
    trials.close()
    assert first.ended


def test_a_version_without_an_end_is_ended_and_the_next_gets_another_process(
    tmp_path: Path, process: TrialProcess
) -> None:
    settings = Settings(home=tmp_path, serving_load_seconds=1)
    make_artifact(tmp_path / "good")
    make_artifact(tmp_path / "bad")
    replace_model(tmp_path / "bad", endless_loop(2))
    trials = Trials(settings)
    with trials.process() as first, pytest.raises(TrialEnded, match="with 1024 MiB, took longer than 1 s"):
        first.try_out(tmp_path / "bad")
    assert first.ended
    # The process of a patient service.
    process.try_out(tmp_path / "good")
    trials.close()


def test_a_process_ends_with_its_service(tmp_path: Path) -> None:
    make_artifact(tmp_path / "bad")
    replace_model(tmp_path / "bad", endless_loop(2))
    code = """
import os, sys, threading, time
from pathlib import Path
from serving.trials import TrialProcess
from training.settings import Settings
process = TrialProcess(Settings(home=sys.argv[1]))
threading.Thread(target=process.try_out, args=(Path(sys.argv[1], "bad"),), daemon=True).start()
time.sleep(1)
print(process._process.pid, flush=True)
os._exit(0)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CT_")}
    command = [sys.executable, "-c", code, str(tmp_path)]
    said = subprocess.run(command, cwd=ROOT, env=environment, timeout=300, stdout=subprocess.PIPE, text=True).stdout
    eventually(lambda: not runs(int(said)))


def runs(pid: int) -> bool:
    """Nobody may have asked yet for the exit code of a process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
