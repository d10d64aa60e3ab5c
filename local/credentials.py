"""The stack's secrets: random, created on the first start, stored in a file that only its owner can read."""

import base64
import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from training import atomic

USER = "admin"


@dataclass(frozen=True)
class Credentials:
    """`password` is for Airflow's user `admin`. The others are keys that no person uses."""

    password: str
    api_secret: str
    jwt_secret: str
    fernet_key: str

    def __repr__(self) -> str:
        return "Credentials(…)"

    @classmethod
    def kept_in(cls, home: Path) -> "Credentials":
        """The credentials stored in `home`, created when there are none."""
        path = home / "credentials.json"
        if not path.exists():
            made = cls(
                password=secrets.token_urlsafe(12),
                api_secret=secrets.token_hex(32),
                jwt_secret=secrets.token_hex(64),
                fernet_key=base64.urlsafe_b64encode(os.urandom(32)).decode(),
            )
            write_private(path, asdict(made))
        return cls(**json.loads(path.read_text()))

    def write_passwords_file(self, path: Path) -> None:
        """Write the file from which Airflow's simple auth manager reads its passwords."""
        write_private(path, {USER: self.password})


def write_private(path: Path, content: dict[str, str]) -> None:
    """Mode 0600 from the first byte on, and whole or not at all."""
    with (
        atomic.replacing(path) as draft,
        os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file,
    ):
        json.dump(content, file)
