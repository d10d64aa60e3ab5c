"""Connect to MLflow with short timeouts and little output. Its errors become those of the step contract."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from training.compat.mlflow import leave_out_feast_headers
from training.contract.errors import StepError, TransientError

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: By default MLflow retries a dead server for minutes. A step gives up after seconds, and its scheduler retries it. The
#: line "View run" would go to standard output, where a step's result may go. Values that an operator has set win.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_TRANSIENT = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}
#: Error codes of MLflow for a model, version or alias that does not exist.
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


def connect(tracking_uri: str) -> "MlflowClient":
    """A client for runs and registry at `tracking_uri`. Sends no request yet. Importing MLflow takes about 2 s."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    leave_out_feast_headers()
    with answering(tracking_uri):
        return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


@contextmanager
def answering(tracking_uri: str) -> Iterator[None]:
    """Turn MLflow's errors into TransientError when it does not answer, and otherwise into StepError."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import OperationalError

    try:
        yield
    except (RequestException, OperationalError) as error:  # OperationalError: a database without a server before it.
        raise _unreachable(tracking_uri, error) from error
    except MlflowException as error:
        if error.error_code in _TRANSIENT:
            raise _unreachable(tracking_uri, error) from error
        raise StepError(f"MLflow at {tracking_uri} refused: {error}", hint="Its server log says more.") from error


def _unreachable(tracking_uri: str, error: Exception) -> TransientError:
    hint = "Start it (`make up`) or set CT_TRACKING_URI; then retry."
    return TransientError(f"MLflow at {tracking_uri} did not answer: {error}", hint)
