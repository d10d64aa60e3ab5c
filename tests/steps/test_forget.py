"""A person's rows go from everywhere, what cannot be made again is named, and nothing that is kept names the person."""

import asyncio
import json
import math
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from testing.compat.mlflow import forget_artifact_folders
from testing.redis_server import running_redis
from testing.serving_stack import changed
from tests.cases import others_long
from tests.steps.monitored_model import MODEL, SOURCE, MonitoredModel, copied
from tests.steps.replica_server import Replica
from training.adapters.features import Features, OnlineRows
from training.adapters.features.online_stores import online_store
from training.adapters.lake import Lake
from training.adapters.ledger import Ledger
from training.adapters.registry import Registry, table_tags
from training.adapters.registry.retention import FORGOTTEN
from training.contract.errors import DataContractError
from training.contract.messages import ForgetInputs, ForgetResult, ReproduceInputs, VerifySourceInputs
from training.contract.model_spec import load_model_spec
from training.domain.predictions import event_type, prediction_schema
from training.forgotten import removals
from training.settings import Settings
from training.steps import forget, reproduce, verify_source


@pytest.fixture
def place(world: MonitoredModel, tmp_path: Path) -> Iterator[Settings]:
    """With quarantined rows, predictions, a landed file and the tags that a registered version has."""
    settings = copied(world, tmp_path)
    _with_artifacts_of_its_own(settings, tmp_path / "mlflow.db")
    registry = Registry(settings.tracking_uri)
    for tag, value in table_tags(world.dataset.table_versions).items():
        registry.tag(MODEL, world.champion.version, tag, value)
    lake = Lake(settings.lake, SOURCE, MODEL)
    person = person_of(lake)
    rows = [{"customer_id": str(person), "amount": -1}, {"customer_id": person + 1, "amount": -1}]
    bad = {"feed": ["events"] * 2, "partition": ["all"] * 2, "reason": ["amount"] * 2}
    bad["row"] = [json.dumps(row) for row in rows]
    lake.replace("quarantine", pa.table(bad), "feed = 'events'", ["feed", "partition"])
    events = lake.scan("events").to_table().slice(0, 2000)
    schema = prediction_schema(event_type(load_model_spec(MODEL)))
    fields = schema.field("event").type
    made = pa.StructArray.from_arrays(
        [events[f.name].combine_chunks().cast(f.type) for f in fields], fields=list(fields)
    )
    count, columns = events.num_rows, dict[str, Any]()
    for field in schema:
        columns[field.name] = made if field.name == "event" else pa.nulls(count, field.type)
    columns["day"] = events["event_time"].cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    lake.append_once("predictions", pa.table(columns, schema=schema), ["day"], "replica", 1)
    landed = Path(settings.landing, SOURCE, "events", "2026-01-05.parquet")
    landed.parent.mkdir(parents=True)
    pq.write_table(events.drop_columns("partition"), landed)
    yield settings
    forget_artifact_folders()


def _with_artifacts_of_its_own(settings: Settings, database: Path) -> None:
    """The copy of MLflow's database still names the artifacts of the shared world, which must stay."""
    forget_artifact_folders()
    with sqlite3.connect(database) as connection:
        [(where,)] = connection.execute("SELECT artifact_uri FROM runs").fetchall()
        old, new = where.partition("/mlflow/")[0], str(settings.home)
        for table, column in (("runs", "artifact_uri"), ("experiments", "artifact_location")):
            connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (old, new))
        connection.execute("UPDATE logged_models SET artifact_location = replace(artifact_location, ?, ?)", (old, new))


def person_of(lake: Lake) -> int:
    """The customer of the first event that the champion learned from."""
    return int(lake.scan("events").to_table(["customer_id"])["customer_id"][0].as_py())


def run(settings: Settings, person: int, dry_run: bool = False) -> ForgetResult:
    return forget.run(ForgetInputs(source=SOURCE, entity=f"customer_id={person}", dry_run=dry_run), settings)


def rows_of(settings: Settings, person: int) -> dict[str, int]:
    """Table → its rows that are the person's."""
    lake = Lake(settings.lake, SOURCE, MODEL)
    found = {
        table: lake.scan(table).count_rows(filter=pc.field("customer_id") == person)
        for table in ("events", "customer_features")
    }
    found["predictions"] = lake.count_where("predictions", f"get_field(event, 'customer_id') = {person}")
    found["quarantine"] = sum(
        str(person) in row for row in lake.scan("quarantine").to_table(["row"])["row"].to_pylist()
    )
    return found


def test_a_person_goes_from_everywhere(place: Settings, world: MonitoredModel) -> None:
    lake = Lake(place.lake, SOURCE, MODEL)
    person = person_of(lake)
    mine = pc.field("customer_id") == person
    ids = set(lake.scan("events").to_table(["transaction_id"], filter=mine)["transaction_id"].to_pylist())
    before, all_events = rows_of(place, person), lake.scan("events").count_rows()
    labelled = lake.scan("labels").count_rows(filter=pc.field("transaction_id").isin(sorted(ids)))
    assert all(before.values())
    assert labelled

    planned = run(place, person, dry_run=True)
    assert rows_of(place, person) == before
    assert planned.tombstone == ""
    assert {table: planned.removed[table] for table in ("events", "labels", "quarantine")} == {
        "events": before["events"],
        "labels": labelled,
        "quarantine": 1,
    }
    assert Ledger(place.ledger).entries(MODEL, FORGOTTEN) == []

    done = run(place, person)

    assert done.removed == planned.removed
    assert done.versions == planned.versions == {MODEL: [world.champion.version]}
    assert set(rows_of(place, person).values()) == {0}
    assert lake.scan("events").count_rows() == all_events - before["events"]
    assert lake.scan("labels").count_rows(filter=pc.field("transaction_id").isin(sorted(ids))) == 0
    landed = str(Path(place.landing, SOURCE, "events", "2026-01-05.parquet"))
    assert [sentence for sentence in done.left if sentence.startswith(landed)]
    assert removals(place.lake, SOURCE, "labels", "all") == [done.tombstone]
    # Golden rows and the reference sample of the champion.
    kept = Path(place.home / "mlflow", MODEL, world.champion.run_id, "artifacts")
    assert person not in pq.read_table(kept / "reference" / "reference.parquet")["customer_id"].to_pylist()
    golden = json.loads((kept / "served" / "metadata.json").read_text())["golden"]
    assert person not in [event["customer_id"] for event in golden["events"]]
    assert len(golden["events"]) == len(golden["scores"]) > 0
    # No file of an earlier version is left.
    for table in ("events", "labels", "customer_features"):
        there = {path.name for path in Path(lake.uri(table)).rglob("*.parquet") if "_delta_log" not in str(path)}
        assert there == {Path(name).name for name in lake.files(table)}
    verify_source.run(VerifySourceInputs(source=SOURCE), place)

    (entry,) = Ledger(place.ledger).entries(MODEL, FORGOTTEN)
    assert entry.key == done.tombstone
    assert entry.body["versions"] == [world.champion.version]
    assert set(entry.body) == {"column", "versions", "rows"}
    assert removals(place.lake, SOURCE, "events", "all") == [done.tombstone]

    with pytest.raises(DataContractError, match=rf"were forgotten on .*, ledger entry {done.tombstone}"):
        reproduce.run(ReproduceInputs(model=MODEL), place)

    again = run(place, person)
    assert (again.tombstone, again.versions) == ("", {})
    assert not {"events", "labels", "quarantine", f"predictions/{MODEL}"} & set(again.removed)
    assert len(Ledger(place.ledger).entries(MODEL, FORGOTTEN)) == 1


def holders(root: Path, person: int) -> set[str]:
    """The files below `root` in which the person is, in a column of Parquet or a field of JSON."""
    written = re.compile(rf'"customer_id\\?": ?\\?"?{person}\\?"?\s*[,}}]')
    found = set()
    for path in root.rglob("*.*"):
        if path.suffix == ".parquet":
            held = pq.read_table(path, partitioning=None).flatten()
            names = [name for name in held.column_names if name in ("customer_id", "event.customer_id")]
            mine = any(pc.any(pc.equal(held[name].cast(pa.string()), str(person))).as_py() for name in names)
            mine = mine or ("row" in held.column_names and any(map(written.search, held["row"].to_pylist())))
        else:
            mine = path.is_file() and bool(written.search(path.read_text(errors="replace")))
        if mine:
            found.add(str(path))
    return found


@pytest.mark.ci
def test_every_file_in_which_the_person_stays_is_named(place: Settings, world: MonitoredModel) -> None:
    """The state also has what nobody's spec names any more, and what was left by a kill."""
    lake = Lake(place.lake, SOURCE, MODEL)
    person = person_of(lake)
    mine = lake.scan("events").to_table(filter=pc.field("customer_id") == person).drop_columns("partition")
    one = {"partition": ["a", "a"], "x": [1.0, 2.0]}
    event = mine["transaction_id"][0].as_py()
    for table, column, value in (("old_features", "customer_id", person), ("old_feed", "transaction_id", event)):
        lake.replace(table, pa.table({column: [value, -5], **one}), "partition = 'a'", ["partition"])
    predictions = lake.scan("predictions").to_table()
    Lake(place.lake, SOURCE, "removed").append_once("predictions", predictions, ["day"], "replica", 1)
    landing = Path(place.landing, SOURCE, "events")
    texts = mine.set_column(2, "customer_id", mine["customer_id"].cast(pa.string()))
    pq.write_table(texts, landing / "2026-01-06.parquet")
    pq.write_table(mine, landing / ".2026-01-07.parquet")
    (landing / "notes.json").write_text(json.dumps({"customer_id": person, "said": "hello"}))
    killed = Path(place.work, SOURCE, "ingest", "killed")
    killed.mkdir(parents=True)
    pq.write_table(mine, killed / "rows.parquet")
    client = MlflowClient(place.tracking_uri, place.tracking_uri)
    runs = [client.create_run(client.get_experiment_by_name(MODEL).experiment_id).info.run_id for _ in range(2)]
    for each in runs:
        client.log_dict(each, {"customer_id": person, "x": 1}, "reference/rows.json")
    client.delete_run(runs[1])
    Path(f"{place.home}-backups", "20260105").mkdir(parents=True)
    tables = ("events", "labels", "customer_features", "old_features", "old_feed")
    assert holders(place.home, person) > {str(killed / "rows.parquet"), str(landing / "notes.json")}

    done = run(place, person)

    assert {"old_features", "old_feed", f"predictions/{MODEL}", "predictions/removed"} <= done.removed.keys()
    assert done.removed[f"artifacts of unregistered runs of {MODEL}"] == 1
    assert [lake.scan(table).count_rows() for table in tables[3:]] == [1, 1]
    left = holders(place.home, person)
    (trash,) = [path for path in left if runs[1] in path]
    # The smallest and the largest value of each file.
    logs = {path for path in left if "/_delta_log/" in path}
    assert [said for said in done.left if said.startswith("Delta's log keeps")]
    for path in left - logs - {trash}:
        assert [said for said in done.left if said.startswith((path, str(Path(path).parents[1])))], path
    assert len(left - logs) == 6
    assert f"1 deleted runs of {MODEL} keep their artifacts until you run `mlflow gc`" in done.left
    assert [said for said in done.left if said.startswith(f"{place.home}-backups has 1 copies")]


@pytest.mark.ci
def test_labels_of_an_event_that_is_only_in_quarantine_go(place: Settings) -> None:
    lake = Lake(place.lake, SOURCE, MODEL)
    person, refused = person_of(lake), 10**12
    row = json.dumps({"customer_id": person, "transaction_id": refused, "amount": -1})
    bad = {"feed": ["events"], "partition": ["new"], "reason": ["amount"], "row": [row]}
    lake.replace("quarantine", pa.table(bad), "partition = 'new'", ["feed", "partition"])
    label = lake.scan("labels").to_table().slice(0, 1)
    label = label.set_column(0, "transaction_id", pa.array([refused]))
    label = label.set_column(label.column_names.index("partition"), "partition", pa.array(["new"]))
    lake.replace("labels", label, "partition = 'new'", ["partition"])
    run(place, person)
    assert lake.scan("labels").count_rows(filter=pc.field("transaction_id") == refused) == 0


@pytest.mark.long
def test_other_sources_and_replicas_with_waiting_predictions_are_named(place: Settings, tmp_path: Path) -> None:
    lake = Lake(place.lake, SOURCE, MODEL)
    person = person_of(lake)
    other = Lake(place.lake, "elsewhere")
    rows = {"customer_id": [str(person), "x"], "partition": ["a", "a"]}
    other.replace("events", pa.table(rows), "partition = 'a'", ["partition"])
    replica = Replica(Registry(place.tracking_uri), tmp_path / "mlflow.db")
    replica.unshipped = True
    settings = changed(place, serving_urls=f"{replica.url},http://127.0.0.1:9")
    left = run(settings, person).left
    assert f"{replica.url} has predictions of {MODEL} that are not in the lake yet: run this again in a minute" in left
    assert [said for said in left if said.startswith(f"http://127.0.0.1:9 does not say whether predictions of {MODEL}")]
    assert [said for said in left if said.endswith("1 events of elsewhere have the value in customer_id")]
    replica.unshipped = False
    assert not [said for said in run(settings, person).left if said.startswith(replica.url)]


@pytest.mark.ci
def test_the_file_of_the_online_store_keeps_nothing_of_the_person(place: Settings) -> None:
    lake, spec = Lake(place.lake, SOURCE, MODEL), load_model_spec(MODEL)
    OnlineRows(place, spec.source).materialize(lake.versions(*spec.source.entities))
    # As a running service, which keeps the write-ahead log of SQLite alive.
    with closing(sqlite3.connect(place.online)) as service:

        def keys() -> set[bytes]:
            (table,) = service.execute("SELECT name FROM sqlite_master WHERE name LIKE '%customer_features'").fetchone()
            found = {key for (key,) in service.execute(f'SELECT DISTINCT entity_key FROM "{table}"')}
            service.rollback()
            return found

        before = keys()
        run(place, person_of(lake))
        (gone,) = before - keys()
        files = [path.read_bytes() for path in Path(place.online).parent.glob(f"{Path(place.online).name}*")]
        assert len(files) == 3
        assert not [content for content in files if gone in content]


def test_nothing_is_removed_for_somebody_who_is_not_there(place: Settings) -> None:
    lake = Lake(place.lake, SOURCE, MODEL)
    versions = lake.versions("events", "labels")
    done = run(place, 10**9)
    assert (done.tombstone, done.versions) == ("", {})
    assert lake.versions("events", "labels") == versions


@pytest.mark.ci
def test_labels_go_of_events_that_only_an_earlier_version_has(place: Settings) -> None:
    lake = Lake(place.lake, SOURCE, MODEL)
    person = person_of(lake)
    mine = pc.field("customer_id") == person
    ids = lake.scan("events").to_table(["transaction_id"], filter=mine)["transaction_id"].to_pylist()
    labelled = pc.field("transaction_id").isin(ids)
    lake.remove("events", f"customer_id = {person}")
    assert lake.scan("labels").count_rows(filter=labelled)
    run(place, person)
    assert lake.scan("labels").count_rows(filter=labelled) == 0


@pytest.mark.ci
def test_corrections_and_unfinished_replays_that_hold_the_person_are_named(place: Settings) -> None:
    person = person_of(Lake(place.lake, SOURCE, MODEL))
    held = {
        Path(place.landing, SOURCE, "_corrections", "mended.parquet"): {"customer_id": [person, person + 1]},
        Path(place.work, SOURCE, "replays", "events", "all", "rows.parquet"): {"customer_id": [person]},
        Path(place.work, SOURCE, "replays", "events", "all", "kept.parquet"): {
            "row": [json.dumps({"customer_id": str(person)})]
        },
    }
    for path, rows in held.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows), path)
    other = Path(place.landing, SOURCE, "_corrections", "of_others.parquet")
    pq.write_table(pa.table({"customer_id": [person + 1]}), other)
    done = run(place, person)
    for path in held:
        assert [sentence for sentence in done.left if sentence.startswith(f"{path} holds")], path
        assert path.is_file()  # A replay has rows of others that are in no table.
    assert not [sentence for sentence in done.left if sentence.startswith(str(other))]


@pytest.mark.redis
def test_a_person_goes_from_redis(place: Settings, tmp_path: Path) -> None:
    with running_redis(tmp_path) as port, asyncio.Runner() as runner:
        settings = changed(place, online_store=f"redis://127.0.0.1:{port}/0")
        lake, spec = Lake(settings.lake, SOURCE, MODEL), load_model_spec(MODEL)
        person = person_of(lake)
        others = pc.field("customer_id") != person
        other = lake.scan("customer_features").to_table(["customer_id"], filter=others)["customer_id"][0].as_py()
        OnlineRows(settings, spec.source).materialize(lake.versions(*spec.source.entities))
        views = [view for view in Features(settings, spec).plan().views if view.name == "customer_features"]

        def known(customer: int) -> bool:
            async def look_up() -> float:
                (found,) = await reader.find([{"customer_id": customer}], views)
                return float(found.stamps[0])

            return not math.isnan(runner.run(look_up()))

        reader = online_store(settings).reader(60.0)
        assert known(person)
        assert known(other)
        run(settings, person)
        assert not known(person)
        assert known(other)


@pytest.mark.ci
@pytest.mark.parametrize("dies_at", others_long([2, 1, 3]))
def test_killed_while_rows_go_it_ends_the_work(place: Settings, monkeypatch: pytest.MonkeyPatch, dies_at: int) -> None:
    lake, calls = Lake(place.lake, SOURCE, MODEL), []
    person, remove = person_of(lake), Lake.remove
    mine = pc.field("customer_id") == person
    ids = lake.scan("events").to_table(["transaction_id"], filter=mine)["transaction_id"].to_pylist()

    class Killed(BaseException):
        pass

    def dying(self: Lake, table: str, predicate: str) -> int:
        calls.append(table)
        if len(calls) == dies_at:
            raise Killed
        return remove(self, table, predicate)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "remove", dying)
        with pytest.raises(Killed):
            run(place, person)
    run(place, person)
    assert set(rows_of(place, person).values()) == {0}
    assert lake.scan("labels").count_rows(filter=pc.field("transaction_id").isin(ids)) == 0


@pytest.mark.ci
def test_events_that_lack_the_column_are_found_by_the_ids_of_an_older_version(place: Settings) -> None:
    lake = Lake(place.lake, SOURCE)
    events = lake.scan("events").to_table()
    mine = events.filter(pc.field("terminal_id") == 1).num_rows
    lake.overwrite("events", events.drop_columns(["terminal_id"]), ["partition"])
    planned = forget.run(ForgetInputs(source=SOURCE, entity="terminal_id=1", dry_run=True), place)
    assert planned.removed["events"] == mine > 0
