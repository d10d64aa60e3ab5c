"""The pages about models in Airflow's UI: an overview of all, and the life of each. Docs: docs/pages.md.

Every process of Airflow loads plugins, and only the API server shows pages. So the application is made by its first
request, and this module imports next to nothing.
"""

from typing import Any

from training.contract.life import PAGES

#: Where the API server mounts the pages.
PREFIX = f"/{PAGES}"


class LazyPages:
    """An ASGI application that imports the pages when the first request comes."""

    def __init__(self) -> None:
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._app is None:
            from perennial_airflow.pages.app import make_app

            self._app = make_app()
        await self._app(scope, receive, send)
