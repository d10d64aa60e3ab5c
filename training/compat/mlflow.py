"""MLflow 3.17: which plugins add headers to its requests, a request too many, and a warning about its own code."""

import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient


def leave_out_feast_headers() -> None:
    """Keep MLflow from importing Feast. Call it before the first request.

    Before its first request MLflow imports every plugin for request headers, and Feast brings one. This would load
    Feast, pandas and torch (6 s of CPU, 200 MB) in every process that asks the registry for an alias, for a header that
    we do not use. Other plugins are left in place: they may carry an operator's login.
    """
    from mlflow.utils import plugins

    every = plugins.get_entry_points
    plugins.get_entry_points = lambda group: [each for each in every(group) if each.name != "feast"]
    try:
        # This module looks up the plugins when it is imported.
        import mlflow.tracking.request_header.registry  # noqa: F401
    finally:
        plugins.get_entry_points = every


def silence_loader_warning() -> None:
    """Do not print what SQLAlchemy 2.1 says about MLflow's store in a database: nobody who runs a step can change it.

    The warning is an SADeprecationWarning. Call it before a client is made.
    """
    warnings.filterwarnings("ignore", r"\s*The ``noload`` loader strategy is deprecated", DeprecationWarning)


def skip_prompt_checks(client: "MlflowClient") -> None:
    """Do not ask for the registered model before each request about it.

    The client does, to refuse models that are prompts. That is a second request, and the more expensive one. No model
    of ours is a prompt.
    """
    client._raise_if_prompt = lambda name: None  # type: ignore[method-assign]
