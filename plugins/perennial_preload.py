"""Tasks start by forking the scheduler: what it has imported, they need not import. Saves about 4 s per task."""

import sys
from importlib import import_module

from airflow.plugins_manager import AirflowPlugin

from training.settings import load_settings

if "scheduler" in sys.argv:
    pods = ("perennial_airflow.pods",) if load_settings().launcher == "pod" else ()
    for module in (
        *pods,
        "airflow.dag_processing.bundles.manager",
        "airflow.dag_processing.dagbag",
        "airflow.providers.standard.operators.python",
        "airflow.sdk.execution_time.task_runner",
        "perennial_airflow.assets",
        "perennial_airflow.operators",
        "perennial_airflow.params",
        "perennial_airflow.requests",
        "perennial_airflow.specs",
    ):
        import_module(module)


class PreloadPlugin(AirflowPlugin):
    """Registers nothing; Airflow wants a class to have loaded the module for."""

    name = "perennial_preload"
