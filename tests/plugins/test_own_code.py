"""Which of our modules the step server has loaded: all, until a file of them changes."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from perennial_airflow.launchers.forkserver import ForkServerProcess

from testing.waiting import eventually
from training.own_code import OwnCode

NAME = "a_package_of_ours"
#: Without libraries: loading them takes many seconds.
SERVER = """
import sys
from pathlib import Path
from training import forkserver
from training.own_code import OwnCode
own = OwnCode(sys.argv[1], frozenset({f"{sys.argv[1]}.steps.say"}))
own.load()
with forkserver._listening(Path(sys.argv[2])) as listener:
    forkserver.serve(listener, own)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / NAME
    (folder / "steps").mkdir(parents=True)
    for name in ("__init__.py", "steps/__init__.py", "__main__.py", "server.py", "atomic.py"):
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
    assert loaded() == {"atomic", "steps", "steps.drift"}
    assert f"{NAME}.broken is left to the steps that need it" in capsys.readouterr().out
    own.unload_if_changed()
    assert loaded() == {"atomic", "steps", "steps.drift"}


@pytest.mark.parametrize("change", ["edited", "deleted", "added", "of a module that was not loaded"])
def test_after_a_change_a_step_loads_the_code_as_it_is_now(own: OwnCode, package: Path, change: str) -> None:
    file = package / "steps" / "drift.py"
    if change == "edited":
        file.write_text("VALUE = 'newer'\n")
    elif change == "deleted":
        file.unlink()
    elif change == "added":
        (package / "steps" / "audit.py").touch()
    else:
        (package / "broken.py").write_text("VALUE = 1\n")
    own.unload_if_changed()
    assert loaded() == set()
    if change == "edited":
        assert import_module(f"{NAME}.steps.drift").VALUE == "newer"


def test_an_edited_module_is_new_for_those_who_import_it_from_the_package(own: OwnCode, package: Path) -> None:
    (package / "atomic.py").write_text("VALUE = 'newer'\n")
    own.unload_if_changed()
    found: dict[str, Any] = {}
    exec(f"from {NAME} import atomic", found)
    assert found["atomic"].VALUE == "newer"


def test_the_step_server_looks_for_changes_before_each_step(package: Path) -> None:
    """A real server of this package. The step ends with a number of a module that the server has loaded."""
    (package / "atomic.py").write_text("NUMBER = 3\n")
    (package / "steps" / "say.py").write_text(f"from {NAME} import atomic\nraise SystemExit(atomic.NUMBER)\n")
    socket = package.parent / "s"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(package.parent)])}
    with subprocess.Popen([sys.executable, "-c", SERVER, NAME, str(socket)], env=environment) as process:

        def end() -> int:
            return ForkServerProcess(logging.getLogger(), socket).launch(["-m", f"{NAME}.steps.say"], {}, 400)

        eventually(socket.exists)
        before = end()
        (package / "atomic.py").write_text("NUMBER = 44\n")
        after = end()
        process.terminate()
    assert (before, after) == (3, 44)
