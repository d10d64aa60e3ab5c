"""MLflow with a login. In the image of MLflow:

    python login.py serve [arguments of `mlflow server`]   the server; every request needs a user
    python login.py users                                  creates or updates the users `steps` and `serving`

Everyone who logs in may read. `steps` may write everything. `serving` changes nothing that it did not create. Both
commands may run any number of times; `users` also gives the users new passwords.

Environment: MLFLOW_BACKEND_STORE_URI, also the database of the users; MLFLOW_AUTH_ADMIN_USERNAME and
MLFLOW_AUTH_ADMIN_PASSWORD; for `serve` MLFLOW_FLASK_SERVER_SECRET_KEY; for `users` MLFLOW_TRACKING_URI,
STEPS_PASSWORD and SERVING_PASSWORD. MLflow wants passwords of 12 characters or more.
"""

import os
import sys
import tempfile
from pathlib import Path

CONFIGURATION = """\
[mlflow]
default_permission = READ
database_uri = {uri}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
# Checking a password takes tens of milliseconds, and serving asks once a second. A changed password counts after this.
auth_cache_ttl_seconds = 60
"""


def serve(arguments: list[str]) -> None:
    """Become the MLflow server. Its configuration holds the database's URI, so only its owner can read the file."""
    folder = Path(tempfile.mkdtemp(prefix="mlflow-login-"))
    path = folder / "auth.ini"
    path.touch(mode=0o600)
    path.write_text(CONFIGURATION.format(uri=os.environ["MLFLOW_BACKEND_STORE_URI"].replace("%", "%%")))
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(path)
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", *arguments]
    os.execv(sys.executable, command)


def users() -> None:
    """Create the users, or give them their passwords, and grant their permissions. Raises MlflowException."""
    passwords = {"steps": os.environ["STEPS_PASSWORD"], "serving": os.environ["SERVING_PASSWORD"]}
    os.environ["MLFLOW_TRACKING_USERNAME"] = os.environ["MLFLOW_AUTH_ADMIN_USERNAME"]
    os.environ["MLFLOW_TRACKING_PASSWORD"] = os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"]
    from mlflow.exceptions import MlflowException
    from mlflow.server import get_app_client

    client = get_app_client("basic-auth", os.environ["MLFLOW_TRACKING_URI"])
    for name, password in passwords.items():
        try:
            client.get_user(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            client.create_user(name, password)
        else:
            client.update_user_password(name, password)
    for kind in ("experiment", "registered_model"):
        try:
            client.grant_user_permission("steps", kind, "*", "MANAGE")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    print("Users with a password:", ", ".join(passwords))


if __name__ == "__main__":
    if sys.argv[1:] == ["users"]:
        users()
    elif sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2:])
    else:
        sys.exit(__doc__)
