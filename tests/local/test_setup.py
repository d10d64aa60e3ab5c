"""The lock, and what each way to set up installs from it."""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.cases import others_in_ci
from training.settings import ROOT

#: BentoML's: a few Python files that ask the driver about GPUs.
NOT_CUDA = {"nvidia-ml-py"}
CUDA = re.compile(r"nvidia-|cuda-|cupy|triton$|torch-cuda|pytorch-triton")


def pins(path: Path) -> dict[str, str]:
    lines = (line.split("#")[0].strip(" \\") for line in path.read_text().splitlines())
    return dict(line.split("==", 1) for line in lines if line and not line.startswith("--hash"))


@pytest.fixture(scope="module")
def lock() -> dict[str, str]:
    return pins(ROOT / "requirements.txt")


def test_the_lock_has_no_cuda_package(lock: dict[str, str]) -> None:
    assert {name for name in lock if CUDA.match(name)} - NOT_CUDA == set()


def test_no_process_compiles_a_grammar_of_uris_when_it_imports_airflow(lock: dict[str, str]) -> None:
    """jsonschema does, for 2.5 s of CPU, where it finds this package."""
    assert "rfc3987-syntax" not in lock
    assert importlib.util.find_spec("rfc3987_syntax") is None


def test_the_lock_names_no_build_of_torch(lock: dict[str, str]) -> None:
    assert "+" not in lock["torch"]


def test_the_lock_has_the_hashes_of_every_package_but_torch() -> None:
    """The builds of torch have hashes of their own, on PyTorch's index."""
    pinned = re.split(r"\n(?=\w)", (ROOT / "requirements.txt").read_text())
    without = {each.split("==")[0] for each in pinned if "==" in each and "--hash=sha256:" not in each}
    assert without == {"torch"}


def test_a_package_with_another_hash_is_not_installed(tmp_path: Path) -> None:
    """As `make setup` and the images install: the lock constrains the extras of pyproject.toml."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("there is no uv in this environment")
    wheel = _wheel(tmp_path / "index", "0" * 4)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "a"\nversion = "1"\n[project.optional-dependencies]\nb = ["tiny"]\n'
    )
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(tmp_path / "venv")], check=True)

    def install(digest: str) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "lock.txt").write_text(f"tiny==1.0 \\\n    --hash=sha256:{digest}\n")
        command = [uv, "pip", "install", "--no-index", "--find-links", wheel.parent, "--python", tmp_path / "venv"]
        command += ["-r", tmp_path / "pyproject.toml", "-c", tmp_path / "lock.txt", "--extra=b", "--no-cache"]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True)

    refused = install("0" * 64)
    assert refused.returncode != 0
    assert "Hash mismatch" in refused.stderr
    assert install(hashlib.sha256(wheel.read_bytes()).hexdigest()).returncode == 0


def _wheel(folder: Path, content: str) -> Path:
    """A wheel of a package `tiny` without code."""
    folder.mkdir()
    path, about = folder / "tiny-1.0-py3-none-any.whl", "tiny-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny.py", content)
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return path


def test_the_lock_has_every_package_that_an_extra_names(lock: dict[str, str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {re.split(r"[\[<>=!~]", line)[0].lower().replace("_", "-") for each in extras.values() for line in each}
    assert names - set(lock) == {"perennial"}


def test_images_and_environments_are_installed_by_one_version_of_uv() -> None:
    pinned = [re.findall(r"\buv==(\S+)", (ROOT / name).read_text()) for name in ("Dockerfile", "local/setup.sh")]
    assert len(pinned[0]) == 1
    assert pinned[0] == pinned[1]


def test_the_bento_has_the_versions_of_the_lock(lock: dict[str, str]) -> None:
    assert pins(ROOT / "serving" / "requirements.txt").items() <= lock.items()


@pytest.mark.parametrize(("kind", "has_tools"), others_in_ci([((), False), (("dev",), True)]))
def test_only_the_developers_environment_has_their_tools(tmp_path: Path, kind: tuple[str], has_tools: bool) -> None:
    """With a uv that writes down how it was called."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "bin" / "uv").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    (tmp_path / "bin" / "uv").chmod(0o755)
    command = ["bash", str(ROOT / "local" / "setup.sh"), str(tmp_path), *kind]
    env = os.environ | {"TORCH_BACKEND": "cu126", "UV_FIND_LINKS": str(tmp_path)}
    subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    called = (tmp_path / "called").read_text().split()
    assert {"--extra=airflow", "--extra=training", "--extra=serving", "--extra=local"} <= set(called)
    assert ("--extra=dev" in called) == has_tools
    assert called[called.index("-c") + 1] == "requirements.txt"
    assert "--torch-backend=cu126" in called
