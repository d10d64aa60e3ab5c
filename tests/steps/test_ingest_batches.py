"""Ingest in batches finds what it finds in a whole file: rules, rows, reasons and their order."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cases import others_in_ci
from tests.steps.ingest_helpers import FIRST, GENERATOR, Deliveries, changed, day
from training.adapters import landing, unique_values
from training.adapters.lake import EVENTS, QUARANTINE
from training.contract.errors import DataContractError, TransientError
from training.contract.messages import IngestInputs
from training.settings import Settings
from training.steps.ingest import run

ROWS = GENERATOR.events(FIRST)
COUNT = ROWS.num_rows
IDS = ROWS["transaction_id"].to_pylist()
ELSEWHERE = GENERATOR.events(day(-1))["transaction_id"][5].as_py()


def odd_rows() -> pa.Table:
    """Rows with every kind of mistake, far from each other. The last ten rows are copies of the first ten."""

    def put(**at: Any) -> Any:
        return lambda values: [at.get(f"r{n}", value) for n, value in enumerate(values)]

    rows = pa.concat_tables([ROWS, ROWS.slice(0, 10)])
    rows = changed(rows, "amount", put(r20=-1.0, r90=None, r150=float("inf"), r151=float("nan"), r21=200_000.0))
    rows = changed(rows, "customer_id", put(r20=-5, r60=None))
    # r2 and its copy differ now; r30 has the id of r100; r70 that of a row of another partition, and no terminal.
    rows = changed(rows, "terminal_id", put(**{f"r{COUNT + 2}": 1_000_000, "r70": None}))
    return changed(rows, "transaction_id", put(r30=IDS[100], r70=ELSEWHERE, r80=None, r81=None))


#: Row of `odd_rows` → its reasons, as ingest of whole files gave them before there were batches.
REASONS = {
    2: ["transaction_id is not unique"],
    20: ["customer_id is below 0", "amount is outside 0 … 100000"],
    21: ["amount is outside 0 … 100000"],
    30: ["transaction_id is not unique"],
    60: ["customer_id is missing"],
    70: ["terminal_id is missing", "transaction_id is in partition 2026-01-04 already"],
    80: ["transaction_id is missing"],
    81: ["transaction_id is missing"],
    90: ["amount is missing"],
    100: ["transaction_id is not unique"],
    150: ["amount is infinite"],
    151: ["amount is missing"],
    **{COUNT + n: ["transaction_id is not unique"] for n in range(10)},
}


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state after one day, to be copied."""
    deliveries = Deliveries(Settings(home=tmp_path_factory.mktemp("delivered")))
    deliveries.events(-1)
    return deliveries.settings.home


@pytest.fixture
def deliveries(delivered: Path, settings: Settings) -> Deliveries:
    shutil.copytree(delivered, settings.home, dirs_exist_ok=True)
    deliveries = Deliveries(settings)
    deliveries.respec(lambda feeds: feeds["events"].update(maximum_quarantined=0.5))
    return deliveries


@pytest.fixture(params=["batches", pytest.param("whole", marks=pytest.mark.ci)])
def batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "batches":
        monkeypatch.setattr(landing, "BATCH_ROWS", 80)
        monkeypatch.setattr(landing, "_PIECE_ROWS", 7)
        monkeypatch.setattr(unique_values, "_BUCKET_ROWS", 20)
        monkeypatch.setattr(unique_values, "_CHUNK_ROWS", 3)
    return str(request.param)


def test_each_row_has_the_same_reasons(deliveries: Deliveries, batches: str) -> None:
    rows = odd_rows()
    inputs = deliveries.land(rows, "2026-01-05")
    pq.write_table(rows, inputs.uri, row_group_size=97)
    result = run(inputs, deliveries.settings)
    assert (result.rows_read, result.rows_quarantined) == (COUNT + 10, len(REASONS))
    found = deliveries.lake.scan(QUARANTINE).to_table()
    delivered = [{**row, "event_time": str(row["event_time"])} for row in rows.take(list(REASONS)).to_pylist()]
    delivered[list(REASONS).index(150)]["amount"], delivered[list(REASONS).index(151)]["amount"] = "inf", "nan"
    assert found["reason"].to_pylist() == ["; ".join(reasons) for reasons in REASONS.values()]
    assert [json.loads(row) for row in found["row"].to_pylist()] == delivered
    kept = deliveries.lake.scan(EVENTS).to_table(filter=pa.compute.field("partition") == "2026-01-05")
    good = [n for n in range(rows.num_rows) if n not in REASONS]
    assert kept.drop_columns("partition").equals(rows.take(good))
    assert result.data_docs is not None
    assert f"22 of {COUNT + 10:,}" in Path(result.data_docs).read_text()


@pytest.mark.ci
def test_a_refusal_counts_all_rows_and_shows_the_first(deliveries: Deliveries, batches: str) -> None:
    deliveries.respec(lambda feeds: feeds["events"].update(maximum_quarantined=0.01))
    with pytest.raises(DataContractError) as refusal:
        deliveries.deliver(odd_rows(), "2026-01-05")
    said = str(refusal.value)
    assert f"{len(REASONS)} of {COUNT + 10} rows" in said
    assert f"transaction_id is not unique: 13, first in row 2 ({IDS[2]})" in said
    assert "amount is infinite: 1, first in row 150 ('inf')" in said
    assert deliveries.lake.version(QUARANTINE) is None


@pytest.mark.ci
def test_one_value_in_all_rows(deliveries: Deliveries, batches: str) -> None:
    deliveries.respec(lambda feeds: feeds["events"].update(maximum_quarantined=1))
    result = deliveries.deliver(changed(ROWS, "transaction_id", lambda ids: [7] * len(ids)), "2026-01-05")
    assert result.quarantine_reasons == {"transaction_id is not unique": COUNT}


def test_text_ids_are_told_apart_across_batches(settings: Settings, batches: str) -> None:
    def of_text(feeds: dict[str, Any]) -> None:
        for feed in feeds.values():
            feed["columns"]["transaction_id"] = {"type": "string", "unique": True}
        feeds["events"].update(slack_days=1, row_count={"minimum": 0, "minimum_ratio": 0})

    deliveries = Deliveries(settings)
    deliveries.respec(of_text)
    ids = [f"é{n}" for n in range(COUNT)]
    ids[150] = ids[3]
    rows = ROWS.set_column(0, "transaction_id", pa.array(ids))
    assert deliveries.deliver(rows, "2026-01-05").quarantine_reasons == {"transaction_id is not unique": 2}
    again = rows.slice(0, 60).set_column(0, "transaction_id", pa.array([*(f"x{n}" for n in range(59)), ids[9]]))
    result = deliveries.deliver(again, "2026-01-06")
    assert result.quarantine_reasons == {"transaction_id is in partition 2026-01-05 already": 1}


@pytest.mark.parametrize("where", others_in_ci([0.5, 0.8]))
def test_a_damaged_page_in_the_middle_commits_nothing(deliveries: Deliveries, batches: str, where: float) -> None:
    inputs = deliveries.land(ROWS, "2026-01-05")
    pq.write_table(ROWS, inputs.uri, row_group_size=50, write_page_checksum=True)
    content = bytearray(Path(inputs.uri).read_bytes())
    groups = pq.ParquetFile(inputs.uri).metadata
    chunk = groups.row_group(int(where * groups.num_row_groups)).column(0)
    content[(chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size // 2] ^= 0xFF
    Path(inputs.uri).write_bytes(content)
    before = deliveries.lake.versions(EVENTS, QUARANTINE)
    with pytest.raises(DataContractError, match="is not a readable Parquet file"):
        run(inputs, deliveries.settings)
    assert deliveries.lake.versions(EVENTS, QUARANTINE) == before
    files = [path for path in Path(deliveries.lake.uri(EVENTS)).rglob("*.parquet") if "2026-01-05" in str(path)]
    assert files == []


def test_a_file_that_is_written_to_while_it_is_read_asks_for_another_try(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = deliveries.land(ROWS, "2026-01-05")
    table = landing._table

    def touched(*args: Any) -> pa.Table:
        os.utime(inputs.uri, (1, 1))
        return table(*args)

    monkeypatch.setattr(landing, "_table", touched)
    with pytest.raises(TransientError, match="was written to while it was read"):
        run(inputs, deliveries.settings)
    assert deliveries.lake.version(QUARANTINE) is None


def test_a_file_that_is_replaced_while_it_is_read_is_read_to_its_end(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = deliveries.land(ROWS, "2026-01-05")
    table = landing._table

    def replaced(*args: Any) -> pa.Table:
        draft = Path(f"{inputs.uri}.draft")
        pq.write_table(ROWS.slice(0, 10), draft)
        draft.replace(inputs.uri)
        return table(*args)

    monkeypatch.setattr(landing, "_table", replaced)
    assert run(inputs, deliveries.settings).rows_kept == COUNT


def test_killed_processes_leave_no_files_for_ever(deliveries: Deliveries) -> None:
    inputs = IngestInputs(
        source="card_payments", feed="events", partition="2026-01-05", uri=str(deliveries.land(ROWS, "2026-01-05").uri)
    )
    run(inputs, deliveries.settings)
    assert list(Path(deliveries.settings.scratch, "card_payments", "ingest").iterdir()) == []
