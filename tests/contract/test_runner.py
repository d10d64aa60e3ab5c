"""The runner, as a process: exit codes, and a report whatever happens."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import urllib.request
from pathlib import Path

import pytest

from training.contract.messages import StepReport
from training.runner import run_step
from training.settings import ROOT

DRIFT = {"model": "card_fraud"}


def _environment(tmp_path: Path, **extra: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("CT_")}
    return clean | {"CT_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), **extra}


def _command(step: str, inputs: str, result: str) -> list[str]:
    return [sys.executable, "-m", "training", step, "--inputs", inputs, "--result", result]


def _run(tmp_path: Path, step: str, inputs: dict | list | str, **extra: str) -> tuple[int, StepReport, str]:
    result = tmp_path / "out" / "report.json"
    text = inputs if isinstance(inputs, str) else json.dumps(inputs)
    environment = _environment(tmp_path, **extra)
    command = _command(step, text, str(result))
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    return ended.returncode, StepReport.model_validate_json(result.read_text()), ended.stderr


@pytest.fixture
def in_process(monkeypatch, tmp_path: Path):
    """Run a step here, without touching pytest's own signal handling. `run` takes the place of its entrypoint."""
    monkeypatch.setenv("CT_HOME", str(tmp_path / "home"))
    before = signal.getsignal(signal.SIGTERM)

    def call(step: str, inputs: dict | list | str, run=None) -> tuple[int, StepReport]:
        if run is not None:
            monkeypatch.setattr(f"training.steps.{step}.run", run)
        text = inputs if isinstance(inputs, str) else json.dumps(inputs)
        code = run_step(step, text, str(tmp_path / "report.json"))
        return code, StepReport.model_validate_json((tmp_path / "report.json").read_text())

    yield call
    signal.signal(signal.SIGTERM, before)


def test_a_step_that_ran_leaves_its_result_and_where_it_came_from(tmp_path: Path) -> None:
    code, report, log = _run(tmp_path, "score", DRIFT, CT_GIT_SHA="abc", CT_IMAGE="training:1")
    assert code == 0
    assert (report.step, report.status, report.error) == ("score", "succeeded", None)
    assert report.result is not None
    assert report.result["outcome"] == "no data"
    assert (report.provenance.git_sha, report.provenance.image) == ("abc", "training:1")
    assert report.provenance.config_hash
    assert "No events in" in log


@pytest.mark.long
def test_a_result_that_is_printed_is_not_logged_as_well(tmp_path: Path) -> None:
    command = _command("drift", json.dumps(DRIFT), "-")
    ended = subprocess.run(command, env=_environment(tmp_path), capture_output=True, text=True, cwd=tmp_path)
    report = StepReport.model_validate_json(ended.stdout)
    assert report.result is not None
    assert report.result["outcome"] == "no data"
    assert '"outcome"' not in ended.stderr


@pytest.mark.parametrize(
    ("inputs", "complaint"),
    [
        ({}, "model is missing"),
        ({"model": "card_fraud", "until": "2026-01-05"}, "until: There is no such field"),
        ({"modl": "card_fraud"}, "Did you mean 'model'?"),
        ([], "Input should be fields"),
        ({"model": "card_fraud", "as_of": "yesterday"}, "as_of: Input should be a valid date"),
        ("{", "They are no JSON"),
        ("[" * 50_000, "They are no JSON"),
    ],
)
def test_wrong_inputs_end_with_64_and_name_the_field(
    in_process,
    tmp_path: Path,
    inputs: dict | list | str,
    complaint: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, report = in_process("drift", inputs)
    log = caplog.text + capsys.readouterr().err
    assert code == 64
    assert report.status == "failed"
    assert report.error is not None
    assert (report.error.type, report.error.retryable) == ("InputError", False)
    assert complaint in f"{report.error.message} {report.error.hint}"
    assert complaint in log
    assert "--schema" in report.error.hint
    assert "Traceback" not in log


def test_an_unknown_setting_ends_with_78(in_process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CT_LAKE", "x")
    code, report = in_process("drift", DRIFT)
    assert code == 78
    assert report.error is not None
    assert "CT_LAKE" in report.error.message


def test_an_unknown_model_ends_with_78(in_process) -> None:
    code, report = in_process("drift", {"model": "churn"})
    assert code == 78
    assert report.error is not None
    assert "churn" in report.error.message


def test_an_error_of_the_contract_gives_its_exit_code(in_process) -> None:
    from training.contract.errors import DataContractError

    def broken(inputs, settings):
        raise DataContractError("13 columns are missing", hint="Ask for them.")

    code, report = in_process("drift", DRIFT, broken)
    assert code == 65
    assert report.error is not None
    assert report.error.model_dump() == {
        "type": "DataContractError",
        "message": "13 columns are missing",
        "retryable": False,
        "hint": "Ask for them.",
    }
    assert report.provenance.config_hash


@pytest.mark.parametrize("url", ["http://nowhere.invalid/", "http://127.0.0.1:9/"])
def test_a_name_without_address_and_a_closed_port_are_transient_whoever_meets_them(in_process, url: str) -> None:
    def run(inputs, settings):
        try:
            urllib.request.urlopen(url, timeout=5)
        except OSError as error:
            raise RuntimeError("a library's own error") from error

    code, report = in_process("drift", DRIFT, run)
    assert code == 75
    assert report.error is not None
    assert report.error.retryable
    assert "a library's own error" in report.error.message


def test_a_bug_ends_with_70_and_leaves_its_traceback(in_process, capsys) -> None:
    def bug(inputs, settings):
        return 1 / 0

    code, report = in_process("drift", DRIFT, bug)
    assert code == 70
    assert report.error is not None
    assert (report.error.message, report.error.retryable) == ("ZeroDivisionError: division by zero", True)
    assert "Traceback" in capsys.readouterr().err


def test_told_to_stop_it_ends_with_75_and_a_report(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import sys, time
        from training.runner import run_step
        from training.steps import rollback

        def slow(inputs, settings):
            print("working", flush=True)
            time.sleep(60)

        rollback.run = slow
        sys.exit(run_step("rollback", '{"model": "card_fraud"}', sys.argv[1]))
        """
    )
    result = tmp_path / "report.json"
    command = [sys.executable, "-c", program, str(result)]
    process = subprocess.Popen(command, env=_environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(400) == 75
    report = StepReport.model_validate_json(result.read_text())
    assert report.error is not None
    assert (report.error.type, report.error.retryable) == ("Stopped", True)


def test_the_report_replaces_the_one_before_and_leaves_no_other_file(in_process, tmp_path: Path) -> None:
    from training.contract.messages import DriftResult

    in_process("drift", DRIFT, lambda inputs, settings: 1 / 0)
    code, report = in_process("drift", DRIFT, lambda inputs, settings: DriftResult(outcome="no data", as_of=None))
    assert (code, report.status) == (0, "succeeded")
    assert [path.name for path in tmp_path.glob("*report*")] == ["report.json"]
    assert list(tmp_path.glob(".*report*")) == []


def test_a_report_that_cannot_be_replaced_leaves_the_old_one_whole(in_process, tmp_path: Path, monkeypatch) -> None:
    from training.contract.messages import DriftResult

    done = DriftResult(outcome="no data", as_of=None)
    in_process("drift", DRIFT, lambda inputs, settings: done)
    before = (tmp_path / "report.json").read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        in_process("drift", DRIFT, lambda inputs, settings: done)
    assert (tmp_path / "report.json").read_bytes() == before
