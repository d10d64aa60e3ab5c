"""Which of our modules the step server has loaded: all, until a file of them changes."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from training.own_code import OwnCode

NAME = "a_package_of_ours"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / NAME
    (folder / "steps").mkdir(parents=True)
    for name in ("__init__.py", "steps/__init__.py", "__main__.py", "server.py"):
        (folder / name).touch()
    (folder / "steps" / "drift.py").write_text("VALUE = 'old'\n")
    (folder / "broken.py").write_text("import no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        del sys.modules[name]


def loaded() -> set[str]:
    return {name.removeprefix(f"{NAME}.") for name in sys.modules if name.startswith(f"{NAME}.")}


@pytest.fixture
def own(package: Path) -> OwnCode:
    own = OwnCode(NAME, programs=frozenset({f"{NAME}.server"}))
    own.load()
    return own


def test_all_modules_are_loaded_but_programs_and_what_cannot_be_imported(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = OwnCode(NAME, programs=frozenset({f"{NAME}.server"}))
    own.load()
    assert loaded() == {"steps", "steps.drift"}
    assert f"{NAME}.broken is left to the steps that need it" in capsys.readouterr().out
    own.unload_if_changed()
    assert loaded() == {"steps", "steps.drift"}


@pytest.mark.parametrize("change", ["edited", "deleted", "of a module that was not loaded"])
def test_after_a_change_a_step_loads_the_code_as_it_is_now(own: OwnCode, package: Path, change: str) -> None:
    file = package / "steps" / "drift.py"
    if change == "edited":
        file.write_text("VALUE = 'newer'\n")
    elif change == "deleted":
        file.unlink()
    else:
        (package / "broken.py").write_text("VALUE = 1\n")
    own.unload_if_changed()
    assert loaded() == set()
    if change == "edited":
        assert import_module(f"{NAME}.steps.drift").VALUE == "newer"
