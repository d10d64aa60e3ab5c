"""Tables in an object store: all clients take the same settings, and no scan goes through a file system in Python."""

import json
import re
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as fs
import pytest

from tests.cases import others_long
from training import object_store, storage
from training.adapters.feature_engines.duckdb import DuckDb
from training.adapters.lake import Lake
from training.contract.errors import ConfigError, ExitCode, StepError, TransientError
from training.delta_log import RECORDS
from training.domain.feature_engine import SqlError
from training.file_digests import problems, recorded
from training.runner import _unexpected

#: Partitions whose names a path, a URL or a pattern could read as something else.
ODD = ["plain", "with space", "100%", "%20", "a%2Fb", "a/b", "ünï-Ωη", "a=b&c", "x+y", "#?*[0]", "'quoted'", "."]
AMAZON = {
    "AWS_ACCESS_KEY_ID": "own-key",
    "AWS_SECRET_ACCESS_KEY": "own-secret",
    "AWS_REGION": "eu-central-1",
    "AWS_ALLOW_HTTP": "true",
}
#: Where a pod finds the credentials of its role, and what it finds.
ROLE = "/v1/credentials"
CREDENTIALS = {"AccessKeyId": "of-role", "SecretAccessKey": "s", "Token": "token-of-role"}
CREDENTIALS |= {"Expiration": "2100-01-01T00:00:00Z"}


class Request(NamedTuple):
    path: str
    headers: Mapping[str, str]


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No settings of any store, and nobody waits for one."""
    for name in ("AWS_ENDPOINT_URL", *AMAZON):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr(object_store, "RETRY_TIMEOUT", timedelta(seconds=0.2))
    storage._store.cache_clear()
    return monkeypatch


@pytest.fixture
def asked() -> Iterator[tuple[str, list[Request]]]:
    """The address of a server that refuses all but the credentials of a role, and what it was asked."""
    requests: list[Request] = []

    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(Request(self.path, {name.lower(): value for name, value in self.headers.items()}))
            content = json.dumps(CREDENTIALS).encode() if self.path == ROLE else b""
            self.send_response(200 if content else 403)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_HEAD = do_PUT = do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", requests
    server.shutdown()
    server.server_close()


def with_obstore(uri: str) -> None:
    storage.read(f"{uri}/file")


def with_delta(uri: str) -> None:
    Lake(uri, "source").version("table")


def with_arrow(uri: str) -> None:
    object_store.arrow_filesystem(uri).open_input_file("file").read()


CLIENTS: list[Callable[[str], None]] = [with_obstore, with_delta, with_arrow]


def refused(client: Callable[[str], None], uri: str) -> None:
    """Have `client` ask a store that refuses it."""
    with pytest.raises((ConfigError, OSError)) as caught:
        client(uri)
    assert isinstance(caught.value, ConfigError) or isinstance(object_store.read_error(caught.value), ConfigError)


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_takes_keys_region_and_endpoint_from_the_environment(
    clean: pytest.MonkeyPatch, asked: tuple[str, list[Request]], client: Callable[[str], None]
) -> None:
    for name, value in {**AMAZON, "AWS_SESSION_TOKEN": "own-token", "AWS_ENDPOINT_URL": f"http://{asked[0]}"}.items():
        clean.setenv(name, value)
    refused(client, "s3://bucket/lake")
    path, headers = asked[1][0]
    assert path.startswith("/bucket")
    assert "Credential=own-key/" in headers["authorization"]
    assert "/eu-central-1/s3/" in headers["authorization"]
    assert headers["x-amz-security-token"] == "own-token"


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("name", "file", "section"), [("", "AWS_SHARED_CREDENTIALS_FILE", "default"),
    ("work", "AWS_SHARED_CREDENTIALS_FILE", "work"), ("work", "AWS_CONFIG_FILE", "profile work")])  # fmt: skip
def test_every_client_takes_the_keys_of_a_profile(
    clean: pytest.MonkeyPatch,
    asked: tuple[str, list[Request]],
    tmp_path: Path,
    client: Callable[[str], None],
    name: str,
    file: str,
    section: str,
) -> None:
    keys = "aws_access_key_id = of-profile\naws_secret_access_key = a%secret\nregion = eu-west-3\n"
    (tmp_path / file).write_text(f"[other]\naws_access_key_id = wrong\n[{section}]\n{keys}")
    clean.setenv("AWS_PROFILE", name)
    clean.setenv("AWS_ALLOW_HTTP", "true")
    clean.setenv("AWS_ENDPOINT_URL", f"http://{asked[0]}")
    refused(client, "s3://bucket/lake")
    assert "Credential=of-profile/" in asked[1][0].headers["authorization"]
    assert "/eu-west-3/s3/" in asked[1][0].headers["authorization"]


@pytest.mark.parametrize("client", CLIENTS)
def test_a_profile_without_keys_is_a_wrong_setting(
    clean: pytest.MonkeyPatch, tmp_path: Path, client: Callable[[str], None]
) -> None:
    (tmp_path / "AWS_CONFIG_FILE").write_text("[profile work]\nsso_session = company\n")
    clean.setenv("AWS_PROFILE", "work")
    with pytest.raises(ConfigError, match=r"profile work .* has no keys") as caught:
        client("s3://bucket/lake")
    assert "aws configure export-credentials --profile work" in caught.value.hint


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_takes_the_role_of_its_pod(
    clean: pytest.MonkeyPatch, asked: tuple[str, list[Request]], client: Callable[[str], None], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("of-the-pod")
    clean.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
    clean.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://{asked[0]}{ROLE}")
    clean.setenv("AWS_ENDPOINT_URL", f"http://{asked[0]}")
    clean.setenv("AWS_ALLOW_HTTP", "true")
    refused(client, "s3://bucket/lake")
    role, read = asked[1][:2]
    assert (role.path, role.headers["authorization"]) == (ROLE, "of-the-pod")
    assert "Credential=of-role/" in read.headers["authorization"]
    assert read.headers["x-amz-security-token"] == "token-of-role"


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_may_be_anonymous(
    clean: pytest.MonkeyPatch, asked: tuple[str, list[Request]], client: Callable[[str], None]
) -> None:
    settings = {"AWS_SKIP_SIGNATURE": "true", "AWS_ALLOW_HTTP": "true", "AWS_ENDPOINT_URL": f"http://{asked[0]}"}
    for name, value in settings.items():
        clean.setenv(name, value)
    refused(client, "s3://bucket/lake")
    assert "authorization" not in asked[1][0].headers


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_may_name_the_bucket_in_the_host(
    clean: pytest.MonkeyPatch, asked: tuple[str, list[Request]], client: Callable[[str], None]
) -> None:
    own = {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true", "AWS_ENDPOINT_URL": "http://bucket.store.example"}
    for name, value in {**AMAZON, **own, "http_proxy": f"http://{asked[0]}"}.items():
        clean.setenv(name, value)
    refused(client, "s3://bucket/lake")
    assert re.match("http://bucket.store.example/+(lake|[?])", asked[1][0].path)


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_takes_the_way_through_a_proxy(
    clean: pytest.MonkeyPatch, asked: tuple[str, list[Request]], client: Callable[[str], None]
) -> None:
    for name, value in {
        **AMAZON,
        "AWS_ENDPOINT_URL": "http://store.example",
        "http_proxy": f"http://{asked[0]}",
    }.items():
        clean.setenv(name, value)
    clean.setenv("no_proxy", "localhost,127.0.0.1")
    refused(client, "s3://bucket/lake")
    assert asked[1][0].path.startswith("http://store.example/bucket")


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_reads_azure(
    clean: pytest.MonkeyPatch, asked: tuple[str, list[Request]], client: Callable[[str], None]
) -> None:
    settings = {"ACCOUNT_NAME": "own", "ACCOUNT_KEY": "c2VjcmV0", "ENDPOINT": f"http://{asked[0]}/own"}
    for name, value in settings.items():
        clean.setenv(f"AZURE_STORAGE_{name}", value)
    clean.setenv("AZURE_ALLOW_HTTP", "true")
    refused(client, "az://container/lake")
    assert asked[1][0].path.startswith("/own/container")
    assert asked[1][0].headers["authorization"].startswith("SharedKey own:")


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_reads_google(
    clean: pytest.MonkeyPatch, asked: tuple[str, list[Request]], client: Callable[[str], None]
) -> None:
    settings = {"GOOGLE_BASE_URL": f"http://{asked[0]}", "GOOGLE_SKIP_SIGNATURE": "true", "GOOGLE_ALLOW_HTTP": "true"}
    for name, value in settings.items():
        clean.setenv(name, value)
    refused(client, "gs://bucket/lake")
    assert "bucket" in asked[1][0].path
    assert "authorization" not in asked[1][0].headers


def rows(partition: str, value: int) -> pa.Table:
    return pa.table({"value": [value], "partition": [partition]})


@pytest.mark.parametrize("folder", others_long(["lüke=1+1", "lake", "a lake", "100%"]))
def test_a_commit_records_the_files_of_a_table_in_any_folder(s3: str, tmp_path: Path, folder: str) -> None:
    lake = Lake(f"{s3}/{tmp_path.name}/{folder}", "source")
    lake.replace("t", rows("a b", 1), "partition = 'a b'", ["partition"])
    [path] = lake.files("t")
    records = storage.files(f"{lake.uri('t')}/{RECORDS}")
    assert [record.name for record in records] == [f"{1:020}.json"]
    assert path in recorded(lake.uri("t"))
    assert problems(lake.uri("t"), [path]) == {}


def test_a_folder_that_only_some_clients_decode_is_refused(s3: str) -> None:
    with pytest.raises(ConfigError, match="s3://bucket/a%20lake/source is percent-encoded") as caught:
        Lake(f"{s3}/a%20lake", "source")
    assert "Write s3://bucket/a lake/source" in caught.value.hint


@pytest.mark.parametrize("folder", others_long(["lüke=1+1", "lake", "a lake", "100%"]))
def test_partitions_of_any_name_are_read(s3: str, tmp_path: Path, folder: str) -> None:
    lake = Lake(f"{s3}/{tmp_path.name}/{folder}", "source")
    lake.overwrite("t", pa.concat_tables(rows(name, value) for value, name in enumerate(ODD)), ["partition"])
    for name in ("a%2Fb", "'quoted'"):
        quoted = name.replace("'", "''")
        lake.replace("t", rows(name, ODD.index(name)), f"partition = '{quoted}'", ["partition"])
    found = lake.scan("t")
    assert sorted(found.to_table().to_pylist(), key=lambda row: row["value"]) == [
        {"value": value, "partition": name} for value, name in enumerate(ODD)
    ]
    for value, name in enumerate(ODD):
        assert found.to_table(filter=pc.field("partition") == name)["value"].to_pylist() == [value]
    with duckdb.connect() as connection:
        connection.register("t", found)
        assert connection.execute("SELECT partition FROM t ORDER BY value").fetchall() == [(name,) for name in ODD]


def test_no_scan_goes_through_a_file_system_in_python(s3: str, tmp_path: Path) -> None:
    """Reader threads that need Python while pyarrow starts a scan would wait for ever."""
    for uri in (str(tmp_path), f"{s3}/{tmp_path.name}"):
        lake = Lake(uri, "source")
        lake.replace("t", rows("a", 1), "partition = 'a'", ["partition"])
        found = lake.scan("t")
        for each in (found.filesystem, *(fragment.filesystem for fragment in found.get_fragments())):
            assert isinstance(each, fs.SubTreeFileSystem)
            assert not isinstance(each.base_fs, fs.PyFileSystem)


@pytest.fixture
def short_lived(clean: pytest.MonkeyPatch) -> Iterator[tuple[Lake, Any]]:
    """A lake with a table, and the server that holds it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {**AMAZON, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        clean.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/own", method="PUT")).close()
    lake = Lake("s3://own", "source")
    lake.replace("t", rows("a", 1), "partition = 'a'", ["partition"])
    yield lake, server
    server.stop()


def test_a_store_that_goes_away_during_a_scan_is_a_reason_to_come_again(
    short_lived: tuple[Lake, Any],
) -> None:
    lake, server = short_lived
    found = lake.scan("t")
    server.stop()
    with pytest.raises(OSError, match=r"part-.*AWS Error") as caught:
        found.to_table()
    assert isinstance(_unexpected(caught.value), TransientError)
    with pytest.raises(TransientError, match="The object store did not answer"):
        DuckDb().execute("SELECT * FROM t", {}, {"t": found})
    with pytest.raises(SqlError):
        DuckDb().execute("SELECT no_such_column FROM t", {}, {"t": pa.table({"a": [1]})})


def test_a_store_that_refuses_a_scan_is_a_wrong_setting(
    short_lived: tuple[Lake, Any], asked: tuple[str, list[Request]], clean: pytest.MonkeyPatch
) -> None:
    lake, _ = short_lived
    real = object_store._s3

    def elsewhere(bucket: str) -> fs.FileSystem:
        clean.setenv("AWS_ENDPOINT_URL", f"http://{asked[0]}")
        return real(bucket)

    clean.setitem(object_store._FILESYSTEMS, "s3", elsewhere)
    with pytest.raises(ConfigError, match="The object store refuses access") as caught:
        DuckDb().execute("SELECT * FROM t", {}, {"t": lake.scan("t")})
    assert caught.value.exit_code == ExitCode.BAD_CONFIG


def test_a_bucket_that_does_not_exist_is_named(short_lived: tuple[Lake, Any]) -> None:
    with pytest.raises(StepError, match="no-such-bucket"):
        Lake("s3://no-such-bucket/lake", "source").scan("t")


def test_a_scheme_without_tables_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="gopher://host/t is in no object store"):
        object_store.arrow_filesystem("gopher://host/t")
