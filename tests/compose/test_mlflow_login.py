"""MLflow with a login, as deploy/mlflow/login.py starts it: a real server, on SQLite."""

import os
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testing.ports import free_ports
from training.adapters.registry import Registry
from training.contract.errors import StepError
from training.settings import ROOT

pytestmark = pytest.mark.long

pytest.importorskip("flask_wtf", reason="the environment is older than the lock: make setup-dev")

LOGIN = str(ROOT / "deploy" / "mlflow" / "login.py")
STEPS, SERVING = "password-of-steps", "password-of-serving"
#: Run as a user: what it may do, one word per line.
USE = """
import sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1], sys.argv[1])
def tried(what, call):
    try:
        call()
        print(what, "done")
    except Exception as error:
        print(what, "refused", str(error).replace(chr(10), " ")[:80])
if sys.argv[2] == "first":
    client.create_registered_model("m")
    run = client.create_run(client.create_experiment("e"), run_name="r")
    client.log_text(run.info.run_id, "kept", "file.txt")
    client.create_model_version("m", run.info.artifact_uri, run.info.run_id)
tried("model", lambda: client.create_registered_model("new-of-" + sys.argv[2]))
tried("experiment", lambda: client.create_experiment("new-of-" + sys.argv[2]))
tried("alias", lambda: client.set_registered_model_alias("m", "champion", "1"))
tried("read", lambda: print(client.get_model_version_by_alias("m", "champion").version))
[run] = client.search_runs([client.get_experiment_by_name("e").experiment_id])
tried("download", lambda: client.download_artifacts(run.info.run_id, "file.txt", sys.argv[3]))
tried("upload", lambda: client.log_text(run.info.run_id, "changed", "file.txt"))
tried("tag", lambda: client.set_registered_model_tag("m", "weight", "1"))
tried("delete", lambda: client.delete_registered_model_alias("m", "other"))
"""


class Server:
    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "CT_"))}
        self.env = kept | {
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
            "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
            "MLFLOW_AUTH_ADMIN_PASSWORD": "password-of-admin",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "STEPS_PASSWORD": STEPS,
            "SERVING_PASSWORD": SERVING,
            **env,
        }
        arguments = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--serve-artifacts"]
        arguments += ["--artifacts-destination", str(folder / "artifacts")]
        with (folder / "log").open("w") as log:
            command = [sys.executable, LOGIN, "serve", *arguments]
            self.process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)

    def wait(self) -> None:
        deadline = time.monotonic() + 400
        while True:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            try:
                if httpx.get(f"{self.url}/health", timeout=5).is_success:
                    return
            except httpx.HTTPError:
                time.sleep(0.3)

    def use(self, user: str, password: str, when: str = "then") -> dict[str, str]:
        env = self.env | {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
        command = [sys.executable, "-c", USE, self.url, when, str(self.folder)]
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if " " in line}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("mlflow"))
    try:
        started.wait()
        yield started
    finally:
        started.process.terminate()
        started.process.wait(120)


def test_steps_write_and_serving_reads(server: Server) -> None:
    steps = server.use("steps", STEPS, "first")
    assert set(steps.values()) == {"done"}
    serving = server.use("serving", SERVING)
    allowed = {what for what, outcome in serving.items() if outcome == "done"}
    assert allowed == {"read", "download"}
    assert serving.keys() == steps.keys()


def test_nobody_enters_without_a_login(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("/api/2.0/mlflow/registered-models/search", "/api/2.0/mlflow-artifacts/artifacts", "/"):
        assert httpx.get(server.url + path).status_code == 401
        assert httpx.get(server.url + path, auth=("serving", STEPS)).status_code == 401
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StepError):
        Registry(server.url).by_alias("m", "champion")


@pytest.mark.parametrize(("user", "password"), [("steps", STEPS), ("serving", SERVING)])
def test_a_model_that_does_not_exist_yet_is_no_error(server: Server, user: str, password: str) -> None:
    code = f"""
from training.adapters.registry import Registry
registry = Registry({server.url!r})
assert registry.by_alias("unknown", "champion") is None
assert registry.versions("unknown") == []
assert registry.state("unknown").aliases == {{}}
assert registry.states(["unknown"])["unknown"].aliases == {{}}
"""
    env = server.env | {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_users_are_made_again_with_their_new_passwords(tmp_path: Path) -> None:
    """As at each start of the server."""
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    make_users, uri = runpy.run_path(LOGIN)["make_users"], f"sqlite:///{tmp_path}/users.db"
    store = SqlAlchemyStore()
    for password in ("password-of-before", "password-of-after"):
        make_users(uri, {"steps": STEPS, "serving": password})
        store.init_db(uri)
        accepted = [
            each for each in ("password-of-before", "password-of-after") if store.authenticate_user("serving", each)
        ]
        assert accepted == [password]
        assert store.authenticate_user("steps", STEPS)


def test_serving_sends_no_request_but_reads(server: Server) -> None:
    """Whatever MLflow itself thinks of the route: also for what nobody owns yet."""
    api = f"{server.url}/api/2.0/mlflow"
    for method, path in [
        ("POST", "registered-models/create"),
        ("POST", "experiments/create"),
        ("POST", "runs/create"),
        ("PATCH", "registered-models/update"),
        ("DELETE", "registered-models/delete"),
        ("PUT", "../mlflow-artifacts/artifacts/1/x/artifacts/file.txt"),
        ("POST", "users/create"),
    ]:
        answer = httpx.request(method, f"{api}/{path}", json={"name": "taken"}, auth=("serving", SERVING))
        assert answer.status_code == 403, path
    assert (
        httpx.post(f"{api}/runs/search", json={"experiment_ids": ["0"]}, auth=("serving", SERVING)).status_code == 200
    )


def test_the_databases_uri_is_in_no_command_line(server: Server) -> None:
    assert "mlflow.db" not in Path(f"/proc/{server.process.pid}/cmdline").read_text()
