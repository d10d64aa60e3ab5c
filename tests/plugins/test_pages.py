"""The pages about models, without a server of Airflow's: what they show, that data cannot become markup, and which
files are served. tests/plugins/test_login.py asks a real Airflow, with its login."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi.testclient import TestClient
from perennial_airflow.pages import access, files
from perennial_airflow.pages.app import make_app
from perennial_airflow.pages.overview_page import sparkline

from testing.html_attacks import ATTACKS
from testing.model_life import ModelLife
from training import object_store, storage
from training.contract.life import Event, Measured
from training.settings import Settings, load_settings

MODEL, SOURCE = "card_fraud", "card_payments"
END = datetime(2026, 3, 2, 12, tzinfo=UTC)


class Page(HTMLParser):
    """The tags of a page with the names of their attributes, its links, its texts and its plots."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.links: dict[str, list[str]] = {}
        self.figures: list[dict[str, Any]] = []
        self.text = ""
        self._link = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, tuple(given)))
        if tag == "a":
            self._link = given["href"] or ""
        if figure := given.get("data-figure"):
            self.figures.append(json.loads(figure))

    def handle_endtag(self, tag: str) -> None:
        self._link = "" if tag == "a" else self._link

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "
        if self._link:
            self.links.setdefault(data.strip(), []).append(self._link)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("CT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CT_MLFLOW_URL", "https://mlflow.example")
    return load_settings()


@pytest.fixture
def readable() -> set[str]:
    """The ids of the DAGs that the user may read; a test may change them."""
    return {f"{MODEL}_monitor", f"{MODEL}_train", f"{SOURCE}_data", "no_runs_yet_monitor"}


@pytest.fixture
def client(state: Settings, readable: set[str]) -> Iterator[httpx.Client]:
    """Somebody who is logged in."""
    app = make_app()
    app.dependency_overrides[access.get_user] = lambda: None
    app.dependency_overrides[access._readable] = lambda: access.Readable(readable)
    with TestClient(app, root_path="/perennial", follow_redirects=False) as made:
        yield made


def written(state: Settings, **fields: Any) -> ModelLife:
    life = ModelLife(state, MODEL, SOURCE, weeks=4, end=END, **fields)
    life.write()
    return life


@pytest.fixture(scope="module")
def shared_life(tmp_path_factory: pytest.TempPathFactory) -> ModelLife:
    return written(Settings(home=tmp_path_factory.mktemp("life") / "home"))


@pytest.fixture
def lived(state: Settings, shared_life: ModelLife, monkeypatch: pytest.MonkeyPatch) -> ModelLife:
    """The life on the pages, for tests that only read: writing one takes half a second of CPU."""
    monkeypatch.setenv("CT_HOME", str(shared_life.settings.home))
    return shared_life


@pytest.fixture
def own_life(state: Settings, shared_life: ModelLife) -> ModelLife:
    """As `lived`, for tests that add to it or change it. What the events say of reports lies with the shared one."""
    shutil.copytree(shared_life.settings.home, state.home)
    return ModelLife(state, MODEL, SOURCE, weeks=4, end=END)


def test_the_overview_lists_the_models_that_the_user_may_read(
    client: httpx.Client, state: Settings, readable: set[str]
) -> None:
    written(state, title="Title of the model")
    ModelLife(state, "of_another_team", SOURCE, weeks=2, title="Secret title").write()
    answer = client.get("/").raise_for_status()
    page = Page(answer.text)
    assert page.links["Title of the model"] == ["/perennial/models/card_fraud"]
    assert page.links["no_runs_yet"] == ["/perennial/models/no_runs_yet"]
    assert "version 2" in page.text
    assert "promote" in page.text
    assert "nothing has run" in page.text
    assert "Secret title" not in answer.text
    assert ("polyline", ("points",)) in page.tags
    assert Page(client.get("/?q=payments+title").text).links.keys() >= {"Title of the model"}
    assert "No model matches the search." in " ".join(Page(client.get("/?q=nothing").text).text.split())
    assert "Title of the model" not in client.get("/?status=none").text
    readable.clear()
    assert "Title of the model" not in client.get("/").text


def test_a_models_page_shows_its_life_and_leads_to_everything(client: httpx.Client, lived: ModelLife) -> None:
    page = Page(client.get(f"/models/{MODEL}").raise_for_status().text)
    for lane in ("data", "drift", "performance", "requests", "trainings", "verdicts", "approvals", "rollouts"):
        assert f" {lane} " in page.text, lane
    for said in (
        "events of 2026-02-10: appended",
        "average_precision 0.",
        "of the features have drifted",
        "xgboost was fitted in 43 s",
        "Promote: xgboost.",
        "Version 2 is registered",
        "approval: outcome approved",
        "As agreed on Monday.",
        "Version 2 is in service",
    ):
        assert said in page.text, said
    train = quote(f"train__{lived.day(21)}", safe="")
    assert f"/dags/{MODEL}_train/runs/{train}/tasks/evaluate" in page.links["Airflow"]
    assert f"https://mlflow.example/#/models/{MODEL}/versions/2" in page.links["MLflow"]
    for link, inside in (
        ("Drift report", "A report"),
        ("Evidence", "A report"),
        ("Verdict", "# Verdict: promote"),
        ("Page of the partition", "A report"),
    ):
        found = client.get(page.links[link][0].removeprefix("/perennial"))
        assert inside in found.raise_for_status().text, link
    titles = [trace["name"] for figure in page.figures for trace in figure["traces"]]
    assert {"done", "in service", "average_precision", "on the holdout", "drifted", "in quarantine"} <= set(titles)
    versions = [note["text"] for note in page.figures[0]["layout"]["annotations"]]
    assert versions == ["v1", "v2"]


def test_numbers_of_an_earlier_version_say_so(client: httpx.Client, own_life: ModelLife) -> None:
    paths = ("/", f"/models/{MODEL}")
    for path in paths:
        assert "of an earlier version" not in client.get(path).raise_for_status().text, path
    # A version that came into service after the last look at the one before.
    own_life.event("models", (28, "train", "rollout", {"model": MODEL}, {"version": 3, "previous_version": 2}))
    for path in paths:
        assert client.get(path).raise_for_status().text.count("of an earlier version") == 2, path


def test_what_every_run_has_is_shown_when_it_is_asked_for(client: httpx.Client, lived: ModelLife) -> None:
    page, all_of_it = (Page(client.get(f"/models/{MODEL}{query}").text) for query in ("", "?routine=true"))
    assert "monitoring run" not in page.text
    assert "monitoring run: " in all_of_it.text
    assert client.get(f"/models/{MODEL}?newest=7").text.count("<time") < 20


def test_the_page_says_why_a_version_was_registered(client: httpx.Client, own_life: ModelLife) -> None:
    why = {
        97: (True, False, "promoted"),
        98: (False, True, "registered by force"),
        99: (False, False, "negative, a person decides"),
    }
    for version, (promote, force, _) in why.items():
        inputs = {"verdict": {"promote": promote}, "force": force}
        own_life.event("models", (28, f"run-{version}", "register", inputs, {"version": version, "digest": "0" * 64}))
    rows = Page(client.get(f"/models/{MODEL}").raise_for_status().text).text.partition(" Verdict ")[2]
    for version, (_, _, said) in why.items():
        assert said in rows.partition(f" {version} ")[2].partition("never")[0], version


def test_an_entry_of_a_kind_that_is_not_known_appears_with_its_fields(client: httpx.Client, state: Settings) -> None:
    life = ModelLife(state, MODEL, SOURCE, weeks=2, end=END)
    life.entry(9, "a_new_kind", "k", {"decided": {"by": "ada"}, "share": 0.123456789, "gates": ["cost", "latency"]})
    life.write()
    page = Page(client.get(f"/models/{MODEL}").text)
    assert "a new kind: decided.by ada; share 0.123457; gates cost; latency" in page.text
    assert " a_new_kind " in page.text


def test_the_data_of_a_source_is_for_those_who_may_read_its_dags(
    client: httpx.Client, lived: ModelLife, readable: set[str]
) -> None:
    docs = Page(client.get(f"/models/{MODEL}").text).links["Page of the partition"][0].removeprefix("/perennial")
    readable.remove(f"{SOURCE}_data")
    page = Page(client.get(f"/models/{MODEL}").text)
    assert "so its data is not shown" in page.text
    assert "rows kept" not in page.text
    assert client.get(docs).status_code == 404


def test_a_model_of_another_team_is_as_one_that_does_not_exist(
    client: httpx.Client, lived: ModelLife, readable: set[str]
) -> None:
    report = Page(client.get(f"/models/{MODEL}").text).links["Drift report"][0].removeprefix("/perennial")
    readable.remove(f"{MODEL}_monitor")
    hidden, missing = (client.get(f"/models/{name}") for name in (MODEL, "no_such_model"))
    assert hidden.status_code == missing.status_code == 404
    assert hidden.text.replace(MODEL, "X") == missing.text.replace("no_such_model", "X")
    assert client.get(report).status_code == 404


def test_a_dag_leads_to_its_model_and_that_of_a_source_to_its_models(client: httpx.Client) -> None:
    for dag, leads in (
        (f"{MODEL}_train", f"/models/{MODEL}"),
        (f"{MODEL}_monitor", f"/models/{MODEL}"),
        (f"{SOURCE}_restore_online", f"/?q={SOURCE}"),
        ("of_others_train", "/"),
    ):
        assert client.get(f"/dags/{dag}").headers["location"] == f"/perennial{leads}"


def attacked(state: Settings, text: str) -> None:
    """A model's life, `text` in every value that comes from people, data or errors."""
    life = ModelLife(state, MODEL, SOURCE, weeks=2, end=END, title=text, owner=text)
    life.entry(9, text, text, {text: text, "phase": text, "run": text, "version": 3, "reason": [text, {text: text}]})
    life.write()
    life.event("models", (10, text, "rollout", {"reason": text}, text))
    life.event(
        "models", (10, text, "evaluate", {}, {"verdict": {"promote": True, "reasons": [text]}, "challenger": {}})
    )
    drift = {"outcome": "measured", "drifted": True, "drifted_share": 0.5, "snapshot": {"as_of": "2026-02-28"}}
    drift |= {"columns": {text: {"drifted": True}}, "report_html": f"{state.work}/{MODEL}/drift/{text}"}
    life.event("models", (11, text, "drift", {}, drift))
    ingest = {"outcome": text, "rows_kept": 1, "data_docs": f"javascript:{text}"}
    life.event("sources", (12, text, "ingest", {"feed": text, "partition": text}, ingest))


@pytest.mark.parametrize(
    "attacks", [ATTACKS[:2], pytest.param(ATTACKS[2:], marks=pytest.mark.ci)], ids=["first", "others"]
)
def test_data_cannot_become_markup(client: httpx.Client, state: Settings, attacks: tuple[str, ...]) -> None:
    """A page that shows an attack has the tags and attributes of a page that shows a word."""
    expected: dict[str, Any] = {}
    for text in ("word", *attacks):
        for folder in (state.work, state.ledger):
            storage.remove_folder(folder)
        attacked(state, text)
        for page in ("/", f"/models/{MODEL}", f"/models/{MODEL}?routine=true"):
            answer = client.get(page).raise_for_status()
            shown = Page(answer.text)
            assert shown.tags == expected.setdefault(page, shown.tags), (page, text[:50])
            urls = [url for found in shown.links.values() for url in found if url != "#content"]
            assert [url for url in urls if not url.startswith(("/", "https://mlflow.example/"))] == []
            # Plotly reads them as markup.
            traces = [trace for figure in shown.figures for trace in figure["traces"]]
            assert "<" not in json.dumps([[trace.get(key) for key in ("name", "text", "y")] for trace in traces])
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self';" in policy
            assert "frame-ancestors 'self'" in policy


@pytest.fixture(scope="module")
def home_with_secrets(tmp_path_factory: pytest.TempPathFactory, shared_life: ModelLife) -> Path:
    """Files that must not be served beside those that are. The tests only read."""
    state = Settings(home=tmp_path_factory.mktemp("secrets") / "home")
    shutil.copytree(shared_life.settings.home, state.home)
    folder = Path(state.work, MODEL)
    for name in ("secret.json", "drift/secret.pkl", "datasets/secret.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("secret")
    (folder / "drift" / "link.json").symlink_to(folder.parent.parent / "ledger" / MODEL / "00000000.json")
    (folder / "drift" / "link").symlink_to(folder)
    return Path(state.home)


@pytest.mark.parametrize(
    "path",
    [
        "../../ledger/card_fraud/00000000.json",
        "drift/../../../ledger/card_fraud/00000000.json",
        "drift/..%2f..%2f..%2fledger%2fcard_fraud%2f00000000.json",
        "drift/%2e%2e/%2e%2e/%2e%2e/ledger/card_fraud/00000000.json",
        "drift/%252e%252e/secret.json",
        "drift//etc/passwd.json",
        "drift/link.json",
        "drift/link/secret.json",
        "drift/secret.pkl",
        "drift/",
        "drift",
        "",
        "datasets/secret.json",
        "%00.json",
        "drift/%00.json",
    ],
)
def test_nothing_but_reports_is_served(
    client: httpx.Client, home_with_secrets: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_HOME", str(home_with_secrets))
    # What may be served from there is, so the settings are read anew.
    report = next(home_with_secrets.glob(f"work/{MODEL}/drift/*/report.html"))
    client.get(f"/models/{MODEL}/reports/drift/{report.parent.name}/report.html").raise_for_status()
    for route in (f"/models/{MODEL}/reports/{path}", f"/sources/{SOURCE}/partitions/{path}"):
        answer = client.get(route)
        assert answer.status_code == 404, route
        assert "secret" not in answer.text.replace("secret.json", "").replace("secret.pkl", "")


def test_a_report_runs_in_a_sandbox_without_the_login(client: httpx.Client, lived: ModelLife) -> None:
    report = Page(client.get(f"/models/{MODEL}").text).links["Drift report"][0].removeprefix("/perennial")
    headers = client.get(report).raise_for_status().headers
    policy = headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert client.get(f"/models/{MODEL}/reports/evidence/9/index.html").status_code == 404


def test_only_our_own_files_are_static(client: httpx.Client) -> None:
    for name in ("pages.css", "pages.js", "icon.svg", "icon-dark.svg"):
        assert client.get(f"/static/{name}").is_success, name
    assert len(client.get("/static/plotly.min.js").content) > 1_000_000
    for name in ("..%2fapp.py", "%2e%2e%2fapp.py", "app.py", "nothing.css", "..%2ftemplates%2fbase.html"):
        assert client.get(f"/static/{name}").status_code == 404, name


def test_pages_change_nothing(client: httpx.Client) -> None:
    for route in ("/", f"/models/{MODEL}", f"/models/{MODEL}/reports/drift/x.html"):
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert client.request(method, route).status_code == 405, (method, route)
    for route in ("/docs", "/openapi.json", "/redoc"):
        assert client.get(route).status_code == 404


def test_a_store_that_does_not_answer_is_said(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CT_WORK_URI", "s3://bucket/work")
    monkeypatch.setenv("CT_LEDGER_URI", "s3://bucket/ledger")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setattr(object_store, "RETRY_TIMEOUT", timedelta())
    storage._store.cache_clear()
    answer = client.get("/")
    assert answer.status_code == 503
    assert "s3://bucket did not answer" in answer.text
    assert "Check the store, then retry." in answer.text


def test_a_line_needs_two_days_and_lies_inside_of_its_picture() -> None:
    def points(*values: float) -> list[Measured]:
        return [
            Measured(at=END, as_of=END.date().replace(day=1 + day), value=value, reference=0.5)
            for day, value in enumerate(values)
        ]

    assert sparkline(points(0.5)) == ("", None)
    for values in ((0.5, 0.5), (0.1, 0.9, 0.4), (-1e9, 1e9)):
        line, reference = sparkline(points(*values))
        pairs = [tuple(map(float, pair.split(","))) for pair in line.split()]
        assert all(0 <= x <= 120 and 0 <= y <= 28 for x, y in pairs)
        assert reference is not None


def test_plotly_is_found_without_importing_it() -> None:
    found = files.plotly()
    assert found is not None
    assert found.name == "plotly.min.js"


def test_an_event_of_a_newer_version_is_read_and_a_broken_one_is_left_out(
    client: httpx.Client, own_life: ModelLife
) -> None:
    folder = Path(own_life.settings.work, "_life", "events", "models", MODEL)
    newest = max(folder.iterdir())
    fields = json.loads(newest.read_text()) | {"a_new_field": 1}
    Event.model_validate(fields)
    newest.write_text(json.dumps(fields))
    sorted(folder.iterdir())[-2].write_text("{")
    assert "No reason to train" in client.get(f"/models/{MODEL}?routine=true").raise_for_status().text
