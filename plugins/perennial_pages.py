"""Shows the pages about models in Airflow's UI: in the menu, and as a tab of each DAG."""

from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin
from perennial_airflow.pages import PREFIX, LazyPages

#: The path at which a proxy serves Airflow.
BASE = urlsplit(conf.get("api", "base_url", fallback="")).path.rstrip("/") + PREFIX


class PagesPlugin(AirflowPlugin):
    name = "perennial_pages"
    fastapi_apps: list[Any] = [{"app": LazyPages(), "url_prefix": PREFIX, "name": "Perennial's pages about models"}]
    external_views: list[Any] = [
        {
            "name": "Models",
            "href": f"{BASE}/",
            "destination": "nav",
            "url_route": "perennial_models",
            "nav_top_level": True,
            "icon": f"{BASE}/static/icon.svg",
            "icon_dark_mode": f"{BASE}/static/icon-dark.svg",
        },
        {"name": "Model", "href": f"{BASE}/dags/{{DAG_ID}}", "destination": "dag", "url_route": "perennial_model"},
    ]
