"""The one connection to MLflow: quick to give up, quiet, and with its failures told apart."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from training.contract.errors import StepError, TransientError

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: MLflow's own defaults retry a dead server for minutes; a step gives up in seconds and is retried by its scheduler.
#: Its "View run" line goes to standard output, where a step's report may go. An operator's own values win.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_TRANSIENT = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}
#: What MLflow answers for a model, version or alias that is not there.
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


def connect(tracking_uri: str) -> "MlflowClient":
    """A client for runs and registry at `tracking_uri`. Talks to no one yet; importing MLflow takes about 2 s."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    _leave_feast_out()
    with answering(tracking_uri):
        return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def _leave_feast_out() -> None:
    """Before its first request MLflow imports every plugin for request headers, and Feast brings one.

    That is Feast, pandas and torch (6 s of CPU, 200 MB) in every process that asks the registry for an alias, for a
    header that nothing here uses. Other plugins are left in place: they may carry an operator's login.
    """
    from mlflow.utils import plugins

    every = plugins.get_entry_points
    plugins.get_entry_points = lambda group: [each for each in every(group) if each.name != "feast"]
    try:
        import mlflow.tracking.request_header.registry  # noqa: F401 – it takes the plugins when it is imported
    finally:
        plugins.get_entry_points = every


@contextmanager
def answering(tracking_uri: str) -> Iterator[None]:
    """Turns MLflow's failures into the contract's: TransientError when it does not answer, else StepError."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import OperationalError

    try:
        yield
    except (
        RequestException,
        OperationalError,
    ) as error:  # the latter where MLflow's database is asked without a server
        raise _unreachable(tracking_uri, error) from error
    except MlflowException as error:
        if error.error_code in _TRANSIENT:
            raise _unreachable(tracking_uri, error) from error
        raise StepError(f"MLflow at {tracking_uri} refused: {error}", hint="Its server log says more.") from error


def _unreachable(tracking_uri: str, error: Exception) -> TransientError:
    hint = "Start it (`make up`) or set CT_TRACKING_URI; then retry."
    return TransientError(f"MLflow at {tracking_uri} did not answer: {error}", hint)
