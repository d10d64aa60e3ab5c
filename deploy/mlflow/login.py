"""MLflow with a login. In the image of MLflow:

    python login.py serve [arguments of `mlflow server`]

First it creates or updates the users `steps` and `serving`, then it becomes the server, in which every request needs a
user. Everyone who logs in may read. `steps` may write everything. `serving` may send no request but reads, because
MLflow itself lets every user create models and experiments with new names.

Environment: MLFLOW_BACKEND_STORE_URI, also the database of the users; MLFLOW_AUTH_ADMIN_USERNAME and
MLFLOW_AUTH_ADMIN_PASSWORD; MLFLOW_FLASK_SERVER_SECRET_KEY; STEPS_PASSWORD and SERVING_PASSWORD. MLflow wants passwords
of 12 characters or more. A new password of `steps` or `serving` counts after a restart.
"""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

CONFIGURATION = """\
[mlflow]
default_permission = READ
database_uri = {uri}
authorization_function = login:authenticate
# Checking a password takes tens of milliseconds, and serving asks once a second. A changed password counts after this.
auth_cache_ttl_seconds = 60
"""
#: Users that may only read.
READERS = {"serving"}
#: Of PostgreSQL's advisory lock: several servers that start at once make the tables and users one after the other.
LOCK = 7_140_517


def serve(arguments: list[str]) -> None:
    """Become the MLflow server. Its configuration holds the database's URI, so only its owner can read the file."""
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    folder = Path(tempfile.mkdtemp(prefix="mlflow-login-"))
    path = folder / "auth.ini"
    path.touch(mode=0o600)
    path.write_text(CONFIGURATION.format(uri=uri.replace("%", "%%")))
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(path)
    # MLflow imports `authenticate` from here.
    here = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    # The server's processes need no password of users.
    passwords = {user: os.environ.pop(f"{user.upper()}_PASSWORD") for user in ("steps", "serving")}
    make_users(uri, passwords)
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", *arguments]
    os.execv(sys.executable, command)


def make_users(uri: str, passwords: dict[str, str]) -> None:
    """Create the users, or give them their passwords; `steps` may change everything. Raises MlflowException."""
    from mlflow.exceptions import MlflowException
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    with create_engine(uri, poolclass=NullPool).connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
        store = SqlAlchemyStore()
        store.init_db(uri)
        for user, password in passwords.items():
            if store.has_user(user):
                store.update_user(user, password=password)
            else:
                store.create_user(user, password)
        for kind in ("experiment", "registered_model"):
            try:
                store.grant_user_resource_permission("steps", kind, "*", "MANAGE")
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
    print("Users with a password:", ", ".join(passwords), flush=True)


def authenticate() -> Any:
    """Called by MLflow for each request: who sends it, or the response that refuses it."""
    from flask import request
    from mlflow.server.auth import authenticate_request_basic_auth, make_forbidden_response

    found = authenticate_request_basic_auth()
    reads = request.method in {"GET", "HEAD"} or (request.method == "POST" and request.path.endswith("/search"))
    if getattr(found, "username", None) in READERS and not reads:
        return make_forbidden_response()
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2:])
    else:
        sys.exit(__doc__)
