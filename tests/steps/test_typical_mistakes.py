"""`make check`: each typical mistake gives one message, with the file and the line or the field."""

import itertools
import re
from pathlib import Path

import pytest

from tests.cases import others_long
from tests.steps.typical_mistakes import MISTAKES, Mistake, copy_files
from training import check
from training.contract.errors import ExitCode

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, str]:
    """The exit code and the output of `make check`, with relative paths."""
    monkeypatch.setenv("CT_HOME", str(folder / "home"))
    monkeypatch.setenv("CT_MODELS_DIR", str(folder / "models"))
    monkeypatch.setenv("CT_FEATURE_REPO", str(folder / "repo"))
    code = check.main([*options])
    out, err = capsys.readouterr()
    return code, (out + err).replace(f"{folder}/", "")


def options_of(mistake: Mistake) -> list[str]:
    """The source or the model with the mistake; none, to check all, where it is in a file of neither."""
    file = Path(mistake.file)
    if file.stem not in ("card_payments", "flights", "card_fraud", "flight_delay", "flight_outcome"):
        return []
    named = "--source" if file.parts[0] == "repo" else "--model"
    return [named, file.stem] if file.suffix != ".yml" else []


@pytest.mark.parametrize("by_hand", others_long([True, False]))
def test_the_reference_files_have_no_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], by_hand: bool
) -> None:
    copy_files(tmp_path, by_hand=by_hand)
    code, said = checked(tmp_path, monkeypatch, capsys)
    assert (code, [line[:1] for line in said.splitlines()]) == (ExitCode.OK, ["✓"] * 5), said


@pytest.mark.parametrize("mistake", others_long(MISTAKES, every=12), ids=lambda mistake: mistake.kind)
def test_a_mistake_gives_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mistake: Mistake
) -> None:
    copy_files(tmp_path, by_hand=mistake.by_hand)
    mistake.change(tmp_path)
    code, said = checked(tmp_path, monkeypatch, capsys, *options_of(mistake))
    assert code == ExitCode.BAD_CONFIG, said
    assert "Traceback" not in said
    # Each problem is a line, followed by one that says what to do.
    lines = said.splitlines()
    [problem] = [line for line, fix in itertools.pairwise(lines) if fix.startswith("    → ")]
    assert problem.lstrip("✗ ").startswith(f"{mistake.file}: "), said
    assert mistake.said in problem
    assert len(re.findall("→", said)) == 1, said
    # What hangs on it is named, and does not repeat it.
    assert all(line[:1] in "✓✗–" or line.startswith("  ") for line in lines), said


@pytest.mark.ci
def test_one_check_names_the_mistakes_of_all_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_files(tmp_path, by_hand=True)
    kinds = (
        "typo in a column of SQL: cards",
        "a feature that the SQL lacks: flights",
        "a feature that the source does not have: cards",
        "a service that the source does not have: flights",
    )
    chosen = [mistake for mistake in MISTAKES if mistake.kind in kinds]
    for mistake in chosen:
        mistake.change(tmp_path)
    _, said = checked(tmp_path, monkeypatch, capsys)
    assert said.count("→") == len(kinds), said
    for mistake in chosen:
        assert mistake.said in said


@pytest.mark.ci
def test_a_source_and_a_model_may_have_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy_files(tmp_path, by_hand=False)
    text = (tmp_path / "models" / "flight_delay.yaml").read_text()
    (tmp_path / "models" / "flights.yaml").write_text(text.replace("name: flight_delay", "name: flights"))
    code, said = checked(tmp_path, monkeypatch, capsys)
    assert code == ExitCode.OK, said
