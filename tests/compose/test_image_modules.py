"""Each image holds the modules that its programs import, and copies none that they do not. Needs no Docker."""

import ast
import re
from functools import cache
from pathlib import Path

import grimp
import pytest

from training.settings import ROOT

#: Target of the Dockerfile → what it runs or imports by name: packages, modules, and files outside packages.
RUNS = {
    "airflow": ["perennial_airflow", "plugins/*.py", "dags/*.py"],
    "serving": ["serving", "feature_repo"],
    "training": ["training", "feature_repo", "local.visit"],
    "backup": ["training", "feature_repo", "local.visit"],
}
#: Folders that an image may have for the files in them that are not Python.
DATA = {Path("feature_repo"), Path("training/models")}
#: Files that images run outside /app, where none of our modules can be imported.
ALONE = ["deploy/mlflow/login.py", "training/sbom.py"]
#: Target → the stage that it begins with, and its instructions.
STAGES = {
    name: (base, body)
    for base, name, body in re.findall(
        r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)",
        (ROOT / "Dockerfile").read_text().replace("\\\n", " "),
        re.MULTILINE | re.DOTALL,
    )
}


@cache
def _graph() -> grimp.ImportGraph:
    packages = ("training", "serving", "feature_repo", "local", "perennial_airflow")
    return grimp.build_graph(*packages, exclude_type_checking_imports=True, cache_dir=None)


def _copied(target: str) -> set[Path]:
    """The files and folders of this repository in an image, relative to the root here and to /app there."""
    base, body = STAGES[target]
    found = _copied(base) if base in STAGES else set()
    for line in re.findall(r"^COPY --from=code (.+)$", body, re.MULTILINE):
        *sources, to = line.split()
        for source in (Path(each).relative_to("/app") for each in sources):
            assert source == (Path(to, source.name) if to.endswith("/") else Path(to)), "it has another name there"
            if source.name != "__pycache__":
                found.add(source)
    return found


def _imported(file: Path) -> set[str]:
    """The modules of ours that a file imports itself, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & _graph().modules


def _file(module: str) -> Path | None:
    """The file of a module, relative to the root; None: it is a folder without an __init__.py."""
    path = Path("plugins" if module.startswith("perennial_airflow") else "", *module.split("."))
    return next((each for each in (path / "__init__.py", path.with_suffix(".py")) if (ROOT / each).is_file()), None)


def _needed(target: str) -> set[Path]:
    """The files of what the image runs, and of all modules that these import."""
    files: set[Path] = set()
    modules: set[str] = set()
    for name in RUNS[target]:
        if name.endswith(".py"):
            found = {path.relative_to(ROOT) for path in ROOT.glob(name)}
            files |= found
            modules |= {module for file in found for module in _imported(ROOT / file)}
        else:
            modules |= {name, *_graph().find_descendants(name)}
    for module in [*modules]:
        modules |= _graph().find_upstream_modules(module)
    packages = {module.rsplit(".", number)[0] for module in modules for number in range(1, module.count(".") + 1)}
    return files | {file for file in map(_file, modules | packages) if file}


def test_it_is_known_what_each_image_with_our_code_runs() -> None:
    assert {target for target in STAGES if _copied(target)} == set(RUNS)


@pytest.mark.parametrize("target", RUNS)
def test_an_image_holds_the_modules_that_it_runs(target: str) -> None:
    copied, needed = _copied(target), _needed(target)
    assert len(needed) > 50
    assert sorted(str(file) for file in needed if not any(file.is_relative_to(each) for each in copied)) == []


@pytest.mark.parametrize("target", RUNS)
def test_an_image_holds_no_module_that_it_does_not_run(target: str) -> None:
    needed = _needed(target)
    assert {each for each in _copied(target) if not any(file.is_relative_to(each) for file in needed)} <= DATA


@pytest.mark.parametrize("file", ALONE)
def test_a_file_that_an_image_runs_alone_imports_none_of_our_modules(file: str) -> None:
    assert _imported(ROOT / file) == set()
