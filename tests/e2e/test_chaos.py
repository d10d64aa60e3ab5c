"""The short form of `make chaos`."""

from pathlib import Path

import pytest

from testing.chaos import chaos

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_loop_whose_processes_are_killed_ends_as_an_undisturbed_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chaos(kills=4, seed=2, folder=tmp_path)
    said = capsys.readouterr().out
    assert said.count("  kill ") - said.count("it had ended") == 4
    assert "4 kills in" in said
