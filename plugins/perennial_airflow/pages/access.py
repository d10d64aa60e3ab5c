"""Who may see what: every page needs Airflow's login, and a model is shown to those who may read its DAGs."""

from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.core_api.security import GetUserDep, get_user
from fastapi import Depends, HTTPException

__all__ = ["Readable", "ReadableDep", "get_user", "login_url"]

#: The kind of DAG that every model, and every source, has one of.
_OF_MODEL, _OF_SOURCE = "_monitor", "_data"


class Readable:
    """What a user may see."""

    def __init__(self, dag_ids: set[str]) -> None:
        self._dag_ids = dag_ids

    @property
    def models(self) -> list[str]:
        """All models whose DAGs the user may read, sorted."""
        return sorted(each.removesuffix(_OF_MODEL) for each in self._dag_ids if each.endswith(_OF_MODEL))

    def may_see_source(self, source: str) -> bool:
        return f"{source}{_OF_SOURCE}" in self._dag_ids

    def require_model(self, model: str) -> None:
        """Raises 404, which does not tell a model of another team from one that does not exist."""
        if f"{model}{_OF_MODEL}" not in self._dag_ids:
            raise HTTPException(404, f"There is no model {model} whose DAGs you may read.")

    def require_source(self, source: str) -> None:
        """As `require_model`."""
        if not self.may_see_source(source):
            raise HTTPException(404, f"There is no source {source} whose DAGs you may read.")


def _readable(user: GetUserDep) -> Readable:
    return Readable(get_auth_manager().get_authorized_dag_ids(user=user, method="GET"))


ReadableDep = Annotated[Readable, Depends(_readable)]


def login_url(next_url: str) -> str:
    """Where to log in, and return to `next_url` afterwards."""
    manager: Any = get_auth_manager()
    return str(manager.get_url_login(next_url=next_url))
