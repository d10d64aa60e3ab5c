"""A full disk: the step ends with 75, leaves no part of a file, and does its work once there is space again."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.steps.ingest_helpers import GENERATOR, SOURCE, Deliveries, day
from training.adapters.lake import EVENTS, Lake
from training.contract.errors import ExitCode
from training.runner import run_step
from training.settings import Settings

KILOBYTE = 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], capture_output=True)
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
    filler.write_bytes(bytes(max(0, found.f_bavail * found.f_frsize - free)))
    return filler


@pytest.mark.parametrize("report_on_disk", [False, True])
@pytest.mark.parametrize("free", [0, 8 * KILOBYTE, 16 * KILOBYTE])
def test_ingest_ends_with_75_and_converges(
    small_disk: Path, tmp_path: Path, free: int, report_on_disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = small_disk / "home"
    monkeypatch.setenv("CT_HOME", str(home))
    landed = Deliveries(Settings(home=tmp_path / "elsewhere"))
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
