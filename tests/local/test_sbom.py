"""Bills of materials are valid CycloneDX, list what is installed, and every licence of the lock is known and wanted."""

import json
import subprocess
import sys
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from training.licences import is_installed, licences, locked, page, problems
from training.sbom import normal, sbom, text
from training.settings import ROOT

DPKG = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9+deb12u10
Description: GNU C Library
 more: of it

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1:1.0
"""


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    return sbom("one")


def test_it_is_valid_and_lists_what_is_installed(tmp_path: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    (tmp_path / "status").write_text(DPKG)
    bill = sbom("perennial-training", system=tmp_path / "status")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text(bill)) is None
    urls = {each["purl"] for each in bill["components"]}
    assert "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64" in urls
    assert not [url for url in urls if "removed" in url]
    ours = {(each["name"], each["version"]) for each in bill["components"]}
    assert {(normal(each.name), each.version) for each in distributions()} <= ours


@pytest.mark.long
def test_it_lists_what_cyclonedx_finds() -> None:
    """Its own command takes 20 s of CPU to read the environment."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", sys.executable]
    theirs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["components"]
    ours = {(each["name"], each["version"]) for each in sbom("perennial-training")["components"]}
    assert {(normal(each["name"]), each["version"]) for each in theirs} <= ours


def test_the_same_environment_gives_the_same_bytes(bill: dict[str, Any]) -> None:
    assert text(sbom("one")) == text(bill)


def test_an_image_makes_one_without_our_packages(tmp_path: Path) -> None:
    """The image of MLflow has nothing of ours."""
    alone = tmp_path / "sbom.py"
    alone.write_bytes((ROOT / "training" / "sbom.py").read_bytes())
    command = [sys.executable, "-I", str(alone), "--name", "perennial/mlflow", "--system"]
    bill = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout)
    assert bill["metadata"]["component"]["name"] == "perennial/mlflow"
    assert len(bill["components"]) > 100


def test_every_image_has_one() -> None:
    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    images = {stage.splitlines()[0].split()[-1]: stage for stage in stages}
    for image in ("mlflow", "airflow", "serving", "training", "backup"):
        assert f"--name perennial/{image} --system > /usr/share/perennial/sbom.cdx.json" in images[image]


def test_licences_of_what_is_installed_are_known_and_wanted() -> None:
    found = licences([name for name in locked() if is_installed(name)])
    assert len(found) > 300
    assert problems(found) == [], "see training/licences.py"


@pytest.mark.skipif(find_spec("pyspark") is None, reason="needs the whole lock: EXTRAS=spark make setup-dev")
def test_licences_are_known_wanted_and_listed() -> None:
    found = licences(locked())
    assert problems(found) == [], "see training/licences.py"
    assert (ROOT / "docs" / "licences.md").read_text() == page(found), "run `make docs`"


@pytest.mark.parametrize(
    ("licence", "refused"),
    [
        (None, True),
        ("AGPL-3.0-only", True),
        ("GPL-3.0-or-later", True),
        ("Business Source License 1.1", True),
        ("SSPL-1.0", True),
        ("CC-BY-NC-4.0", True),
        ("LGPL-2.1-or-later", False),
        ("Artistic-1.0-Perl OR GNU General Public License (GPL)", False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("MIT", False),
    ],
)
def test_a_licence_that_is_not_wanted_is_named(licence: str | None, refused: bool) -> None:
    assert bool(problems({"package": licence})) is refused
