"""Mistakes in specs are named among Airflow's import errors, once each."""

from pathlib import Path

import pytest
from perennial_airflow.specs import broken_specs

from tests.steps.typical_mistakes import MISTAKES, Mistake, copy_files


@pytest.mark.parametrize(
    "mistake", [each for each in MISTAKES if each.breaks_parsing], ids=lambda mistake: mistake.kind
)
def test_a_mistake_in_a_spec_is_one_import_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: Mistake
) -> None:
    copy_files(tmp_path, by_hand=mistake.by_hand)
    mistake.change(tmp_path)
    monkeypatch.setenv("CT_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("CT_FEATURE_REPO", str(tmp_path / "repo"))
    [error] = broken_specs()
    assert str(tmp_path / mistake.file) in error
    assert mistake.said in error
