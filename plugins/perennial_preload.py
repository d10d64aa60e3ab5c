"""Imports modules while Airflow's processes start, so that tasks and triggers need not wait for them.

A task is a fork of the scheduler and has what the scheduler imported. That saves about 4 s per task. It also has the
plugins as tasks see them, which Airflow loads apart from those of its own processes. The triggerer imports the class of
a trigger in its event loop, which blocks all other triggers for 0.25 s.
"""

import sys
from importlib import import_module

from airflow.plugins_manager import AirflowPlugin
from perennial_airflow.compat.airflow_sdk import load_task_plugins
from perennial_airflow.launchers import LAUNCHERS

from training.settings import load_settings

MODULES = {
    "scheduler": (
        "airflow.dag_processing.bundles.manager",
        "airflow.dag_processing.dagbag",
        "airflow.providers.standard.operators.python",
        "airflow.sdk.execution_time.task_runner",
        "perennial_airflow.approvals",
        "perennial_airflow.assets",
        "perennial_airflow.operators",
        "perennial_airflow.params",
        "perennial_airflow.requests",
        "perennial_airflow.specs",
    ),
    # The second one serves the asset state store to triggers. Without it the first delivery waits for 3 s.
    "triggerer": ("perennial_airflow.triggers", "airflow.api_fastapi.execution_api.routes"),
}
for program, modules in MODULES.items():
    if program in sys.argv:
        for module in modules:
            import_module(module)
        # The triggerer needs the launcher's triggers, which its module imports.
        LAUNCHERS.find(load_settings().launcher)
if "scheduler" in sys.argv:
    load_task_plugins()


class PreloadPlugin(AirflowPlugin):
    """Registers nothing. Airflow loads this module because it has a plugin class."""

    name = "perennial_preload"
