"""MLflow 3.17 in tests: what it does anew for each database, what it mixes up between two, and its server alone."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

#: What `mlflow server` has uvicorn serve. It reads its settings from `server_environment`.
SERVER_APP = "mlflow.server.fastapi_app:app"


def server_environment(database: str, artifacts: Path) -> dict[str, str]:
    """What `mlflow server` sets for the server that it starts: the URI of its database, and that it serves artifacts
    from a folder."""
    return {
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(artifacts),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
    }


def find_newest_migration_once() -> None:
    """For each database MLflow imports its 67 migrations to find the newest: let it remember that one."""
    from mlflow.store.db import utils

    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)


def share_compiled_statements() -> None:
    """Let all SQLite databases share the statements that SQLAlchemy has compiled, which are the same for each.

    SQLAlchemy remembers a statement for one dialect object, so they share that too.
    """
    from mlflow.store.db import utils

    utils.create_sqlalchemy_engine = _with_shared_statements(utils.create_sqlalchemy_engine)


def _with_shared_statements(create: Callable[[str], Any]) -> Callable[[str], Any]:
    first, compiled = list[Any](), dict[Any, Any]()

    def shared(uri: str) -> Any:
        engine = create(uri)
        if engine.dialect.name == "sqlite":
            first[:] = first or [engine.dialect]
            [engine.dialect] = first
            engine.update_execution_options(compiled_cache=compiled)
        return engine

    return shared


def forget_artifact_folders() -> None:
    """MLflow remembers where the artifacts of a run are, for all databases alike: the copy of one has the same runs."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()
