"""Private parts of Airflow's Flask-AppBuilder provider, the login of a cluster (helm/airflow-values.yaml)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow.providers_manager import ProvidersManager


@contextmanager
def security_manager() -> Iterator[Any]:
    """What knows users, roles and permissions. Airflow's own roles exist after this."""
    ProvidersManager().initialize_providers_configuration()
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as builder:
        yield builder.sm
