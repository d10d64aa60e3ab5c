"""Feast's definitions in the published registry, before any step has run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.settings import ROOT


@pytest.mark.long
def test_publish_applies_the_definitions_to_an_empty_registry_and_again(tmp_path: Path) -> None:
    env = {**os.environ, "CT_HOME": str(tmp_path)}
    for time in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "training.publish"], cwd=ROOT, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        published = "Published the feature definitions" in done.stderr
        assert published == (time == 0), "once"
    assert (tmp_path / "feast" / "registry.db").is_file()
