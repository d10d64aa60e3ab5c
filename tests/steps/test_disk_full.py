"""A full disk: each step ends with 75, leaves no part of a file, and does its work once there is space again."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.loop_steps import MODEL, run_loop, write_spec
from tests.cases import others_in_ci, others_long
from tests.steps.ingest_helpers import GENERATOR, SOURCE, Deliveries, day
from training.adapters.lake import EVENTS, Lake
from training.adapters.ledger import Ledger
from training.adapters.registry import CHAMPION, Registry
from training.contract.errors import ExitCode
from training.contract.messages import FeaturesInputs
from training.runner import run_step
from training.settings import Settings
from training.steps import features

KILOBYTE = 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 MB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(disk)], capture_output=True)
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A step handles SIGTERM; the tests' own handler comes back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def fill(disk: Path, free: int) -> Path:
    """Leave `free` bytes."""
    filler, found = disk / "filler", os.statvfs(disk)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, found.f_bavail * found.f_frsize - free))
    return filler


@pytest.mark.parametrize("report_on_disk", others_in_ci([False, True]))
@pytest.mark.parametrize("free", others_long([8 * KILOBYTE, 0, 16 * KILOBYTE]))
def test_ingest_ends_with_75_and_converges(
    small_disk: Path, tmp_path: Path, free: int, report_on_disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = small_disk / "home"
    monkeypatch.setenv("CT_HOME", str(home))
    landed = Deliveries(Settings(home=tmp_path / "elsewhere"))
    monkeypatch.setenv("CT_LANDING_URI", landed.settings.landing)
    text = landed.land(GENERATOR.events(day(0)), str(day(0))).model_dump_json()
    result = (small_disk if report_on_disk else tmp_path) / "report.json"
    filler = fill(small_disk, free)
    codes = [run_step("ingest", text, str(result)) for _ in range(2)]
    assert codes == [ExitCode.TRANSIENT] * 2
    assert not [path for path in small_disk.rglob(".*") if path.is_file()]
    filler.unlink()
    assert run_step("ingest", text, str(result)) == ExitCode.OK
    undisturbed = landed.events(0)
    lake = Lake(str(home / "lake"), SOURCE)
    assert lake.scan(EVENTS).count_rows() == landed.lake.scan(EVENTS).count_rows()
    assert undisturbed.table_versions.keys() == lake.versions(*undisturbed.table_versions).keys()


@pytest.mark.ci
def test_a_registry_of_features_is_published_whole_or_not_at_all(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = small_disk / "home"
    monkeypatch.setenv("CT_HOME", str(home))
    landed, result = Deliveries(Settings(home=home)), tmp_path / "report.json"
    days, versions = {"start": str(day(1)), "end": str(day(2))}, landed.events(0).table_versions
    computed = features.run(FeaturesInputs(source=SOURCE, days=days, table_versions=versions), landed.settings)
    online = {table: version for table, version in computed.table_versions.items() if table not in versions}
    inputs = json.dumps({"source": SOURCE, "table_versions": online})
    # Feast's registry has 15 kB. Feast writes what fits of it, without an error, and could not read that again.
    for free in range(76 * KILOBYTE, 100 * KILOBYTE, 4 * KILOBYTE):
        filler = fill(small_disk, free)
        assert run_step("materialize", inputs, str(result)) in (ExitCode.OK, ExitCode.TRANSIENT), result.read_text()
        filler.unlink()
        assert run_step("materialize", inputs, str(result)) == ExitCode.OK, (free, result.read_text())
        shutil.rmtree(home / "feast")
    assert not [path for path in home.rglob(".*") if path.is_file()]


@pytest.mark.long
def test_each_step_of_a_loop_ends_with_75_and_does_its_work_once_when_there_is_space(
    small_disk: Path, tmp_path: Path, mlflow_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(mlflow_database, small_disk)
    uri, home, result = f"sqlite:///{small_disk}/mlflow.db", small_disk / "home", tmp_path / "report.json"
    monkeypatch.setenv("CT_HOME", str(home))
    monkeypatch.setenv("CT_LANDING_URI", str(tmp_path / "landing"))
    monkeypatch.setenv("CT_TRACKING_URI", uri)
    monkeypatch.setenv("CT_MODELS_DIR", str(write_spec(tmp_path / "models", serving=None)))

    def step(name: str, **inputs: Any) -> dict[str, Any]:
        text, filler = json.dumps(inputs), fill(small_disk, 0)
        assert run_step(name, text, str(result)) == ExitCode.TRANSIENT, (name, result.read_text())
        assert not [path for path in home.rglob(".*") if path.is_file()], name
        filler.unlink()
        assert run_step(name, text, str(result)) == ExitCode.OK, (name, result.read_text())
        found: dict[str, Any] = json.loads(result.read_text())["result"]
        return found

    run_loop(step, tmp_path / "landing")
    registry = Registry(uri)
    champion = registry.by_alias(MODEL, CHAMPION)
    assert champion is not None
    assert champion.version == 1
    assert [version.version for version in registry.versions(MODEL)] == [1]
    ledger = Ledger(str(home / "ledger"))
    keys = [(entry.kind, entry.key) for entry in ledger.entries(MODEL)]
    assert (ledger.problems(MODEL), len(keys)) == ([], len(set(keys)))
