"""Connect to MLflow with short timeouts and little output, and turn its errors into errors of the step contract."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from training.compat.mlflow import leave_out_feast_headers, silence_loader_warning, skip_prompt_checks
from training.contract.errors import StepError, TransientError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
#: By default MLflow retries a server that is down for minutes. A step should fail after seconds and be retried by its
#: scheduler. MLflow would also print the line "View run" to standard output, where a step may print its result. Values
#: that are set in the environment take precedence.
_ENVIRONMENT = {
    _RETRIES: "2",
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
    """A client for runs and registry at `tracking_uri`. Does not send a request. Importing MLflow takes about 2 s."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    leave_out_feast_headers()
    silence_loader_warning()
    with contract_errors(tracking_uri):
        client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    skip_prompt_checks(client)
    return client


@contextmanager
def sent_once() -> Iterator[None]:
    """Send the requests of the block without MLflow's retries.

    What creates a run or a version creates a second one when it is sent again because its answer got lost. The step
    fails instead, with a TransientError, and its next try looks for the first one.
    """
    before = os.environ.get(_RETRIES)
    os.environ[_RETRIES] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_RETRIES]
        else:
            os.environ[_RETRIES] = before


@contextmanager
def contract_errors(tracking_uri: str) -> Iterator[None]:
    """Turn errors of MLflow into TransientError when it does not answer, and into StepError otherwise."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import OperationalError

    try:
        yield
    except (
        RequestException,
        OperationalError,
    ) as error:  # OperationalError: from a database that is used without a server.
        raise _unreachable(tracking_uri, error) from error
    except MlflowException as error:
        if error.error_code in _TRANSIENT:
            # The code of errors inside of MLflow's client, too.
            hint = "Retry. If it happens again, see the log of the MLflow server, and whether it runs (`make status`)."
            raise TransientError(f"MLflow at {tracking_uri} failed or did not answer: {error}", hint) from error
        raise StepError(
            f"MLflow at {tracking_uri} refused: {error}", hint="See the log of the MLflow server."
        ) from error


def _unreachable(tracking_uri: str, error: Exception) -> TransientError:
    hint = "Start it (`make up`) or correct CT_TRACKING_URI, then retry."
    return TransientError(f"MLflow at {tracking_uri} did not answer: {error}", hint)
