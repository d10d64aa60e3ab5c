"""`python -m training`: the one way in."""

import io
import json
from pathlib import Path

import pytest

from training.__main__ import main
from training.contract.errors import ExitCode
from training.contract.steps import STEPS


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CT_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("name", STEPS)
def test_schema_prints_what_a_step_takes_and_gives_and_runs_nothing(name: str, capsys) -> None:
    assert main([name, "--schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {
        "inputs": STEPS[name].inputs.model_json_schema(),
        "result": STEPS[name].result.model_json_schema(),
    }


def test_help_lists_every_step(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(spec.name in printed and spec.summary in printed for spec in STEPS.values())


def test_inputs_come_from_the_line_a_file_or_standard_input(tmp_path: Path, capsys, monkeypatch) -> None:
    inputs = '{"model": "card_fraud"}'
    (tmp_path / "inputs.json").write_text(inputs)
    monkeypatch.setattr("sys.stdin", io.StringIO(inputs))
    for given in (inputs, f"@{tmp_path}/inputs.json", "-"):
        assert main(["drift", "--inputs", given]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["status"], report["result"]["outcome"]) == ("succeeded", "no data")


@pytest.mark.parametrize(("name", "content"), [("none.json", None), ("latin.json", b"\xff\xfe{}"), ("", None)])
def test_a_file_of_inputs_that_cannot_be_read_is_told(name: str, content: bytes | None, tmp_path: Path, capsys) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert main(["drift", "--inputs", f"@{tmp_path}/{name}"]) == ExitCode.BAD_INPUT
    assert f"The inputs cannot be read from {tmp_path}/{name}" in capsys.readouterr().err


def test_standard_input_that_is_no_text_is_told(capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe{}"), encoding="utf-8"))
    assert main(["drift", "--inputs", "-"]) == ExitCode.BAD_INPUT
    assert "The inputs cannot be read from standard input" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--schema"]])
def test_an_unknown_step_is_refused_with_the_one_that_was_meant(more: list[str], capsys, caplog) -> None:
    assert main(["dirft", *more]) == ExitCode.BAD_INPUT
    said = capsys.readouterr()
    assert "Did you mean 'drift'?" in said.err + caplog.text
    assert more or json.loads(said.out)["error"]["message"] == "There is no step 'dirft'"
