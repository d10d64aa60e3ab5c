"""The pages about models read their small files from an object store, and show what they show of folders."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from perennial_airflow.pages import access
from perennial_airflow.pages.app import make_app

from testing.model_life import ModelLife
from training import storage
from training.settings import Settings, load_settings

MODEL, SOURCE = "card_fraud", "card_payments"
END = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    app = make_app()
    app.dependency_overrides[access.get_user] = lambda: None
    app.dependency_overrides[access._readable] = lambda: access.Readable({f"{MODEL}_monitor", f"{SOURCE}_data"})
    with TestClient(app, root_path="/perennial", follow_redirects=False) as made:
        yield made


def pages(client: httpx.Client, settings: Settings) -> tuple[str, str]:
    """The overview and the life of a model whose events were written with these settings."""
    ModelLife(settings, MODEL, SOURCE, weeks=1, end=END, title="Title of the model").write()
    return tuple(client.get(route).raise_for_status().text for route in ("/", f"/models/{MODEL}"))  # type: ignore[return-value]


def test_overview_and_life_are_those_of_folders(
    client: httpx.Client, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path / "home"))
    of_folders = pages(client, load_settings())
    monkeypatch.setenv("CT_WORK_URI", f"{s3}/work")
    monkeypatch.setenv("CT_LEDGER_URI", f"{s3}/ledger")
    settings = load_settings()
    assert client.get(f"/models/{MODEL}").status_code == 404 or "Title of the model" not in client.get("/").text
    overview, life = pages(client, settings)
    assert "Title of the model" in overview
    # They name the same files, at their addresses.
    here = [text.replace(str(tmp_path / "home" / "work"), f"{s3}/work") for text in of_folders]
    assert [overview, life] == here
    assert storage.tree(f"{s3}/work")
    assert storage.tree(f"{s3}/ledger")
