"""The walk of docs/your-model.md: its commands write the files, and the request that it shows is one of the model."""

import json
import re
from datetime import date
from pathlib import Path

import pytest

from local import flights
from serving.schema import RequestSchema
from training.contract.errors import ExitCode
from training.contract.model_spec import load_model_spec
from training.onboarding.__main__ import main
from training.settings import ROOT, Settings, variable

PAGE = (ROOT / "docs" / "your-model.md").read_text()


def command(verb: str) -> dict[str, str]:
    """The variables of `make <verb>` in the walk."""
    [text] = re.findall(rf"^    make {verb} ((?:.*\\\n)*.*)$", PAGE, re.MULTILINE)
    return dict(part.split("=", 1) for part in text.replace("\\\n", " ").split())


@pytest.mark.long
def test_the_walk_writes_a_source_and_a_model_and_its_request_is_read(
    here: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for field in ("home", "models_dir", "feature_repo", "tracking_uri"):
        monkeypatch.setenv(variable(field), str(getattr(here, field)))
    # Fewer days than in the walk, so that the test is quick.
    list(flights.land(tmp_path, "flights", date(2013, 1, 1), date(2013, 1, 31), days_per_file=90))
    files = {name: str(tmp_path / "flights" / name) for name in ("events", "labels")}
    source, model, landed = command("new-source"), command("new-model"), command("land")
    assert source["NAME"] == model["SOURCE"] == landed["NAME"]
    given = ["--data", files["events"], "--labels", files["labels"]]
    assert main(["new-source", "--name", source["NAME"], *given]) == ExitCode.OK
    said = capsys.readouterr().out
    assert f"make land NAME={source['NAME']} DATA={files['events']} LABELS={files['labels']}" in said
    named = ["--name", model["NAME"], "--source", model["SOURCE"], "--label", model["LABEL"]]
    assert main(["new-model", *named, *given]) == ExitCode.OK
    assert f"/models/{model['NAME']}/predict" in capsys.readouterr().out
    spec = load_model_spec(model["NAME"], here.models_dir, here.feature_repo)
    assert spec.task.kind == "regression"
    [body] = re.findall(rf"/models/{model['NAME']}/predict.*? -d '(\{{.*?\}})'", PAGE, re.DOTALL)
    assert RequestSchema(spec).one(body.encode())["flight_id"] == json.loads(body)["flight_id"]


def test_a_mistake_is_one_sentence_on_standard_error(
    here: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable("feature_repo"), str(here.feature_repo))
    code = main(["new-source", "--name", "shops", "--data", str(tmp_path / "none.parquet")])
    assert code == ExitCode.BAD_INPUT
    assert "There is no file" in capsys.readouterr().err
