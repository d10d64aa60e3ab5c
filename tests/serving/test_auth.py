"""Who may call: keys that rotate without a restart, a gateway's header, and admins apart."""

import subprocess
import sys
from pathlib import Path

import pytest

from serving import auth as module
from serving.auth import Auth
from serving.keys import new_key
from serving.schema import BadRequest
from training.contract.errors import ConfigError
from training.settings import ROOT, Settings


def status(auth: Auth, key: str | None = None, role: module.Role = "predict", **others: str) -> int:
    headers = {b"authorization": f"Bearer {key}".encode()} if key else {}
    headers |= {name.replace("_", "-").encode(): value.encode() for name, value in others.items()}
    try:
        auth.check(headers, "10.1.2.3", role)
    except BadRequest as refused:
        return refused.status
    return 200


def test_without_settings_all_may_predict_and_nobody_is_an_admin(tmp_path: Path) -> None:
    auth = Auth(Settings(home=tmp_path))
    assert [status(auth), status(auth, role="admin")] == [200, 403]


def test_keys_have_roles(tmp_path: Path) -> None:
    (shop, shops), (ops, opss) = new_key("shop", "predict"), new_key("ops", "admin")
    (tmp_path / "keys").write_text(f"# callers\n{shops}\n\n{opss}  # on call\n")
    auth = Auth(Settings(home=tmp_path, serving_keys_file=str(tmp_path / "keys")))
    assert [status(auth), status(auth, "wrong"), status(auth, shop), status(auth, ops)] == [401, 401, 200, 200]
    found = [status(auth, key, "admin") for key in (None, "wrong", shop, ops)]
    assert found == [401, 401, 403, 200]
    assert shop not in (tmp_path / "keys").read_text()


def test_keys_rotate_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    (old, olds), (new, news) = new_key("shop", "predict"), new_key("shop-2", "predict")
    file = tmp_path / "keys"
    file.write_text(olds)
    auth = Auth(Settings(home=tmp_path, serving_keys_file=str(file)))
    assert [status(auth, old), status(auth, new)] == [200, 401]
    file.write_text(f"{olds}\n{news}")
    assert [status(auth, old), status(auth, new)] == [200, 200]
    file.write_text(news)
    assert [status(auth, old), status(auth, new)] == [401, 200]
    file.write_text("half a li")  # being written
    assert status(auth, new) == 200
    file.unlink()
    assert [status(auth, new), status(auth)] == [200, 401]
    file.write_text("# nobody\n")
    assert status(auth, new) == 401


@pytest.mark.parametrize("text", ["predict shop", "root shop " + "a" * 64, "predict shop plaintextkey"])
def test_a_file_that_makes_no_sense_is_no_start(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError, match="Line 1"):
        Auth(Settings(home=tmp_path, serving_keys_file=str(tmp_path / "keys")))
    with pytest.raises(ConfigError, match="cannot be read"):
        Auth(Settings(home=tmp_path, serving_keys_file=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(("peers", "trusted"), [("", True), ("10.1.0.0/16", True), ("10.2.0.0/16, 192.168.0.1", False)])
def test_a_gateways_header_counts_from_its_peers(tmp_path: Path, peers: str, trusted: bool) -> None:
    auth = Auth(Settings(home=tmp_path, serving_trusted_header="X-User", serving_trusted_peers=peers))
    assert status(auth) == 401
    assert status(auth, x_user="ann") == (200 if trusted else 401)
    assert status(auth, role="admin", x_user="ann") in (401, 403)


def test_the_command_makes_a_line_of_its_key(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "serving.keys", "shop", "admin"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    key, line = said[0].removeprefix("key   "), said[1].removeprefix("line  ")
    (tmp_path / "keys").write_text(line)
    assert status(Auth(Settings(home=tmp_path, serving_keys_file=str(tmp_path / "keys"))), key, "admin") == 200
