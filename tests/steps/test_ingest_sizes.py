"""Landed files whose rows take more memory than allowed: through the command line of ingest."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.steps.ingest_helpers import GENERATOR, SOURCE, Deliveries, day
from training.contract.errors import DataContractError, ExitCode
from training.contract.messages import IngestInputs
from training.domain.parquet_size import declared_bytes
from training.settings import ROOT, Settings
from training.steps.ingest import run


def repeated(value: object, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.nulls(rows, pa.int32()).fill_null(0), pa.array([value]))


def land(settings: Settings, table: pa.Table, **how: Any) -> Path:
    path = Path(settings.landing, SOURCE, "events", f"{day(0)}.parquet")
    path.parent.mkdir(parents=True)
    pq.write_table(table, path, compression="zstd", store_schema=False, **how)
    return path


def ingest(settings: Settings, uri: Path, **given: str) -> tuple[int, dict[str, Any], int]:
    """The exit code, the report, and the largest memory of the process in bytes."""
    inputs = {"source": SOURCE, "feed": "events", "partition": str(day(0)), "uri": str(uri)}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CT_")}
    env = clean | {"CT_HOME": str(settings.home), "PYTHONPATH": str(ROOT), **given}
    # A parent's memory counts in ru_maxrss of a process, and not in VmHWM.
    code = (
        "import sys; from pathlib import Path; from training.__main__ import main; code = main(); "
        "print(Path('/proc/self/status').read_text(), file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "ingest", "--inputs", json.dumps(inputs)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    (memory,) = re.findall(r"^VmHWM:\s+(\d+) kB$", done.stderr, re.MULTILINE)
    return done.returncode, json.loads(done.stdout), int(memory) * 1024


def refusal(settings: Settings, path: Path, **given: str) -> str:
    code, report, memory = ingest(settings, path, **given)
    assert code == ExitCode.DATA_CONTRACT, report
    assert "CT_LANDED_MAXIMUM_BYTES" in report["error"]["hint"] + report["error"]["message"]
    assert memory < 700 << 20
    message = str(report["error"]["message"])
    assert message.startswith(f"{path} ({path.stat().st_size:,} bytes) is too large: ")
    return message


@pytest.mark.long
def test_a_small_file_with_many_rows_is_refused_before_it_is_decoded(settings: Settings) -> None:
    rows = 61_000_000
    path = land(settings, pa.table({"x": repeated(7, rows)}), row_group_size=rows)
    assert path.stat().st_size < 300_000
    said = refusal(settings, path, CT_LANDED_MAXIMUM_BYTES="400000000")
    assert said.endswith("it declares rows of 488,000,000 bytes, and CT_LANDED_MAXIMUM_BYTES allows 400,000,000")


@pytest.mark.ci
def test_pages_that_compress_well_are_refused_before_they_are_decoded(settings: Settings) -> None:
    path = land(settings, pa.table({"x": pa.nulls(10_000_000, pa.float64()).fill_null(0)}), use_dictionary=False)
    assert "it declares rows of 80," in refusal(settings, path, CT_LANDED_MAXIMUM_BYTES="50000000")


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux limits the memory of a block")
def test_a_text_that_a_dictionary_repeats_does_not_take_the_memory(settings: Settings) -> None:
    table = pa.table({"x": repeated("a" * 1_000_000, 200_000)})
    path = land(settings, table, dictionary_pagesize_limit=10_000_000)
    assert declared_bytes(pq.ParquetFile(path).metadata) < 2_000_000
    said = refusal(settings, path, CT_LANDED_MAXIMUM_BYTES="50000000")
    assert "its rows take more than 6" in said


@pytest.mark.long
def test_texts_with_a_prefix_that_is_written_once_are_measured_when_they_are_decoded(settings: Settings) -> None:
    table = pa.table({"x": ["a" * 10_000] * 5_000})
    path = land(settings, table, use_dictionary=False, column_encoding={"x": "DELTA_BYTE_ARRAY"})
    assert declared_bytes(pq.ParquetFile(path).metadata) < 2_000_000
    said = refusal(settings, path, CT_LANDED_MAXIMUM_BYTES="20000000")
    assert "its rows take more than 50," in said


def refused(settings: Settings, path: Path, maximum_bytes: int) -> str:
    """As `refusal`, in this process: what is not read takes no memory."""
    inputs = IngestInputs(source=SOURCE, feed="events", partition=str(day(0)), uri=str(path))
    with pytest.raises(DataContractError) as raised:
        run(inputs, settings.model_copy(update={"landed_maximum_bytes": maximum_bytes}))
    return raised.value.message


def test_a_file_that_is_larger_than_its_rows_may_be_is_not_read(settings: Settings) -> None:
    path = Path(settings.landing, SOURCE, "events", f"{day(0)}.parquet")
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        file.truncate(3 << 30)  # Takes no space on the disk.
    assert "its content alone is larger" in refused(settings, path, 1 << 30)


def test_part_files_count_together(settings: Settings) -> None:
    folder = Path(settings.landing, SOURCE, "events", f"{day(0)}.parquet")
    folder.mkdir(parents=True)
    for number in range(3):
        table = pa.table({"x": repeated(7, 1_000_000)})
        pq.write_table(table, folder / f"part-{number}.parquet", store_schema=False)
    (folder / "_SUCCESS").touch()
    assert "it declares rows of 24,000,000 bytes" in refused(settings, folder, 20_000_000)


@pytest.mark.long
def test_a_file_within_the_limit_is_taken(settings: Settings) -> None:
    rows = GENERATOR.events(day(0))
    inputs = Deliveries(settings).land(rows, str(day(0)))
    declared = declared_bytes(pq.ParquetFile(inputs.uri).metadata)
    assert declared < 2 * rows.nbytes
    largest = max(declared, rows.nbytes)
    code, report, _ = ingest(settings, Path(inputs.uri), CT_LANDED_MAXIMUM_BYTES=str(largest + 1000))
    assert code == ExitCode.OK, report
