"""State in a local folder and in an S3-compatible store: one behaviour."""

import io
import json
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from perennial_airflow.deliveries import scan
from perennial_airflow.reports import step_result

from training import object_store, storage
from training.adapters.datasets import HOLDOUT, REFERENCE, TRAIN, Dataset, is_complete, requests, write_dataset
from training.adapters.lake import Lake
from training.adapters.landing import open_landed
from training.adapters.ledger import Ledger
from training.contract.base import Days
from training.contract.errors import ConfigError, DataContractError, InputError, TransientError
from training.contract.feature_definitions import FeatureDefinitions
from training.contract.messages import DatasetResult, Split
from training.contract.model_spec import MODELS_DIR, load_model_spec
from training.contract.steps import STEPS
from training.runner import run_step
from training.settings import Settings
from training.workspace import share


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that does not exist yet."""
    if request.param == "local":
        return str(tmp_path / "state")
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


def test_what_is_written_is_read_and_replaced_whole(folder: str) -> None:
    uri = storage.join(folder, "a", "report.json")
    assert storage.read(uri) is None
    storage.write(uri, b"first")
    storage.write(uri, b"second")
    assert storage.read(uri) == b"second"
    assert storage.size(uri) == len(b"second")
    storage.remove(uri)
    storage.remove(uri)
    assert storage.read(uri) is None
    assert storage.size(uri) is None


def test_of_many_creators_one_wins(folder: str) -> None:
    uri = storage.join(folder, "one")
    gate = threading.Barrier(8)

    def create(number: int) -> bool:
        gate.wait()
        return storage.create(uri, str(number).encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert won.count(True) == 1
    assert storage.read(uri) == str(won.index(True)).encode()


def test_a_folder_lists_its_own_files_with_stamps_that_change(folder: str) -> None:
    assert storage.files(folder) == []
    for name in ("b", "a", "deeper/c"):
        storage.write(storage.join(folder, name), b"content")
    first = storage.files(folder)
    assert [file.name for file in first] == ["a", "b"]
    assert abs(first[0].changed.timestamp() - time.time()) < 60
    storage.write(storage.join(folder, "a"), b"other content")
    second = storage.files(folder)
    assert second[0].stamp != first[0].stamp
    assert second[1] == first[1]


def test_a_tree_lists_what_the_folders_in_it_list(folder: str) -> None:
    for path in ("a.txt", "one/b.txt", "one/two/c.txt", "one/two/three/d.txt", "one/two/three/four/e.txt", "x/y/f.txt"):
        storage.write(storage.join(folder, *path.split("/")), path.encode())
    tree = storage.Tree(folder, 3)
    for path in ("", "one", "one/two", "one/two/three", "x", "x/y", "none"):
        uri = storage.join(folder, *path.split("/")) if path else folder
        assert tree.listing(uri) == storage.listing(uri), path
    assert tree.files(storage.join(folder, "one", "two", "three", "four")) == []
    assert storage.Tree(storage.join(folder, "none"), 3).listing(storage.join(folder, "none")) == storage.Listing(
        [], []
    )


def test_a_folder_that_cannot_be_listed_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("good", "bad"):
        storage.write(f"{tmp_path}/{name}/a.txt", b"")
    scandir = os.scandir

    def refuse(path: object) -> object:
        if str(path).endswith("bad"):
            raise PermissionError(path)
        return scandir(str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    tree = storage.Tree(str(tmp_path), 2)
    assert [file.name for file in tree.files(f"{tmp_path}/good")] == ["a.txt"]
    with pytest.raises(PermissionError):
        tree.listing(f"{tmp_path}/bad")


def test_a_folder_is_uploaded_with_its_folders(s3: str, tmp_path: Path) -> None:
    for name in ("dataset.json", "train/part-0.parquet"):
        storage.write(str(tmp_path / "here" / name), name.encode())
    storage.upload(tmp_path / "here", f"{s3}/there")
    assert storage.read(f"{s3}/there/train/part-0.parquet") == b"train/part-0.parquet"
    assert storage.read(f"{s3}/there/dataset.json") == b"dataset.json"


def lead_to(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """The environment leads to `endpoint`, and nobody waits for it long."""
    monkeypatch.setattr(object_store, "RETRY_TIMEOUT", timedelta(seconds=0.2))
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for name in ("AWS_ALLOW_HTTP", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "true")


@pytest.fixture
def refusing() -> Iterator[str]:
    """The URL of a server that answers everything with 403."""

    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


AWAY = [("nowhere", "http://127.0.0.1:9"), ("unnamed", "http://s3.invalid:9000")]
ROWS = pa.table({"day": ["2026-01-05"], "score": [0.5]})
LAKE_CALLS: dict[str, Callable[[Lake], object]] = {
    "version": lambda lake: lake.version("events"),
    "scan": lambda lake: lake.scan("events", 3),
    "spans": lambda lake: lake.spans("events", "event_time"),
    "replace": lambda lake: lake.replace("events", ROWS, "day = '2026-01-05'", ["day"]),
    "append": lambda lake: lake.append_once("labels", ROWS, ["day"], "replica", 1),
}


@pytest.mark.parametrize(("bucket", "endpoint"), AWAY)
def test_a_store_that_does_not_answer_is_a_reason_to_come_again(
    monkeypatch: pytest.MonkeyPatch, bucket: str, endpoint: str
) -> None:
    lead_to(monkeypatch, endpoint)
    with pytest.raises(TransientError, match=f"s3://{bucket} did not answer for a/b"):
        storage.read(f"s3://{bucket}/a/b")


@pytest.mark.parametrize("call", LAKE_CALLS)
@pytest.mark.parametrize(("bucket", "endpoint"), AWAY)
def test_a_lake_that_does_not_answer_is_a_reason_to_come_again(
    monkeypatch: pytest.MonkeyPatch, bucket: str, endpoint: str, call: str
) -> None:
    lead_to(monkeypatch, endpoint)
    with pytest.raises(TransientError, match=rf"s3://{bucket}\S* did not answer.*error sending"):
        LAKE_CALLS[call](Lake(f"s3://{bucket}/lake", "m"))


@pytest.mark.parametrize("call", LAKE_CALLS)
def test_a_lake_that_refuses_us_is_a_wrong_setting(monkeypatch: pytest.MonkeyPatch, refusing: str, call: str) -> None:
    lead_to(monkeypatch, refusing)
    with pytest.raises(ConfigError, match=r"The store of s3://bucket/m refuses access: .*403 Forbidden"):
        LAKE_CALLS[call](Lake("s3://bucket", "m"))


def test_a_lake_that_goes_away_before_the_commit_is_a_reason_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    lead_to(monkeypatch, f"http://{host}:{port}")
    bucket = f"http://{host}:{port}/short-lived"
    urllib.request.urlopen(urllib.request.Request(bucket, method="PUT")).close()
    lake = Lake("s3://short-lived", "m", "model")
    lake.append_once("predictions", ROWS, ["day"], "replica", 1)

    def rows() -> Iterator[pa.RecordBatch]:
        server.stop()
        yield from ROWS.to_batches()

    with pytest.raises(TransientError, match="did not answer"):
        lake.overwrite("predictions", pa.RecordBatchReader.from_batches(ROWS.schema, rows()), ["day"])


def test_a_store_that_nobody_knows_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="gopher://host is not a supported object store"):
        storage.read("gopher://host/a")


def test_two_writers_share_a_ledger(folder: str) -> None:
    ledgers = [Ledger(folder), Ledger(folder)]

    def append(number: int) -> None:
        ledgers[number % 2].append("request", "card_fraud", {"number": number}, str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, range(12)))
    assert ledgers[0].problems("card_fraud") == []
    assert sorted(entry.body["number"] for entry in ledgers[1].entries("card_fraud")) == list(range(12))


def test_a_step_leaves_its_report_where_airflow_reads_it(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path))
    uri = storage.join(folder, "results", "1.json")
    nothing = {"source": "card_payments", "days": None, "table_versions": {}}
    code = run_step("features", json.dumps(nothing), uri)
    assert step_result(STEPS["features"], code, uri)["table_versions"] == {}


FEEDS = ("events", "labels")
MAXIMUM = 1 << 20


def read_landed(uri: str, scratch: Path) -> tuple[str, list[int]]:
    """The hash of the content, and the ids in it."""
    with open_landed(uri, MAXIMUM, scratch) as landed:
        return landed.sha256, [each for batch in landed.batches() for each in batch["id"].to_pylist()]


def test_deliveries_are_found_and_read(folder: str, tmp_path: Path) -> None:
    events = storage.join(folder, "events", "2026-01-05.parquet")
    storage.write(events, parquet(1))
    storage.write(storage.join(folder, "events", ".2026-01-06.parquet"), b"not whole yet")
    assert scan(folder, FEEDS, time.time() - 10) == []
    (delivery,) = scan(folder, FEEDS, time.time() + 10)
    assert delivery.key == "events/2026-01-05"
    assert read_landed(events, tmp_path)[1] == [1]
    storage.write(events, parquet(1, 2))
    assert scan(folder, FEEDS, time.time() + 10) != [delivery]
    with pytest.raises(InputError, match="There is no file at"):
        read_landed(storage.join(folder, "events", "2026-01-07.parquet"), tmp_path)


def parquet(*ids: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ids}), sink)
    return bytes(sink.getvalue().to_pybytes())


def test_a_folder_of_part_files_is_found_and_read_as_one(folder: str, tmp_path: Path) -> None:
    partition = storage.join(folder, "events", "2026-01-05.PARQUET")
    for number, ids in enumerate(([1, 2], [3])):
        storage.write(storage.join(partition, f"part-{number}.snappy.parquet"), parquet(*ids))
    with pytest.raises(InputError, match="without the file _SUCCESS"):
        read_landed(partition, tmp_path)
    assert scan(folder, FEEDS, time.time() + 10) == []
    storage.write(storage.join(partition, "_SUCCESS"), b"")
    (delivery,) = scan(folder, FEEDS, time.time() + 10)
    assert (delivery.key, delivery.name) == ("events/2026-01-05", "2026-01-05.PARQUET")
    sha256, ids = read_landed(partition, tmp_path)
    assert ids == [1, 2, 3]
    storage.write(storage.join(partition, "part-1.snappy.parquet"), parquet(4))
    assert read_landed(partition, tmp_path) != (sha256, [1, 2, 4])
    storage.write(storage.join(partition, "part-1.snappy.parquet"), b"broken")
    with pytest.raises(DataContractError, match="not a readable Parquet file"):
        read_landed(partition, tmp_path)
    storage.write(storage.join(partition, "day=5", "part-0.parquet"), b"nested")
    with pytest.raises(InputError, match="contains folders: day=5"):
        read_landed(partition, tmp_path)


def test_the_lake_commits_each_batch_once_and_tells_writers_of_each_other(folder: str) -> None:
    lake, rows = Lake(folder, "card_payments", "card_fraud"), pa.table({"day": ["2026-01-05"], "score": [0.5]})
    assert lake.append_once("predictions", rows, ["day"], "replica", 1) is not None
    assert lake.append_once("predictions", rows, ["day"], "replica", 1) is None
    assert lake.scan("predictions").to_table().num_rows == 1
    gate = threading.Barrier(4)

    def replace(number: int) -> str:
        mine = pa.table({"day": ["2026-01-06"], "score": [float(number)]})
        gate.wait()
        try:
            lake.replace("predictions", mine, "day = '2026-01-06'", ["day"])
        except TransientError:
            return "told to come again"
        return "committed"

    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(replace, range(4)))
    assert "committed" in ends
    assert lake.scan("predictions").to_table().num_rows == 2


def test_nothing_of_a_failed_write_is_left(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="taken"):
        storage.write(str(tmp_path / "taken"), b"content")
    assert os.listdir(tmp_path) == ["taken"]


def test_what_a_step_shares_lies_under_work(folder: str, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home", work_uri=folder)
    page = settings.scratch / "card_fraud" / "drift" / "report.html"
    storage.write(str(page), b"page")
    uri = share(settings, page.parent)
    assert uri == storage.join(folder, "card_fraud", "drift")
    assert storage.read(storage.join(uri, "report.html")) == b"page"


def test_a_dataset_is_whole_with_its_manifest(folder: str) -> None:
    uri, days = storage.join(folder, "d"), Days(start=date(2026, 1, 5), end=date(2026, 1, 6))
    frame = pd.DataFrame({"a": [1.0]})
    split = {name: Split(days=days, uri=storage.join(uri, name), rows=1) for name in (TRAIN, HOLDOUT)}
    manifest = DatasetResult(
        dataset_id="d",
        uri=uri,
        as_of=date(2026, 1, 7),
        feature_service="s",
        feature_names=["a"],
        train=split[TRAIN],
        holdout=split[HOLDOUT],
        seed=0,
        table_versions={},
    )
    made_of = requests(pd.DataFrame({"transaction_id": [1], "event_time": [datetime(2026, 1, 5, tzinfo=UTC)]}), frame)
    definitions = FeatureDefinitions(views=(), request_views=())
    write_dataset(uri, {TRAIN: frame, HOLDOUT: frame, REFERENCE: frame}, manifest, made_of, definitions)
    assert is_complete(uri)
    read = Dataset(uri, load_model_spec("card_fraud", MODELS_DIR))
    assert read.manifest == manifest
    assert pd.read_parquet(io.BytesIO(read.reference())).equals(frame)
    assert read.definitions() == definitions
    assert read.requests().to_pylist() == made_of.to_pylist()
    storage.remove(storage.join(uri, "dataset.json"))
    assert not is_complete(uri)


def test_a_folder_goes_with_all_in_it_and_its_neighbour_stays(folder: str) -> None:
    for name in ("a/one", "a/b/two", "ab/three"):
        storage.write(storage.join(folder, name), b"x")
    for _ in range(2):
        storage.remove_folder(storage.join(folder, "a"))
        assert storage.folders(folder) == ["ab"]
    assert storage.read(storage.join(folder, "ab", "three")) == b"x"
