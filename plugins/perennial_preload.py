"""Modules that Airflow's processes import while they start, so that nothing waits for them later.

Tasks start by forking the scheduler: what it has imported, they need not import. Saves about 4 s per task. The
triggerer imports a trigger's class in its event loop, which stands still meanwhile: 0.25 s for ours.
"""

import sys
from importlib import import_module

from airflow.plugins_manager import AirflowPlugin

from training.settings import load_settings

MODULES = {
    "scheduler": (
        "airflow.dag_processing.bundles.manager",
        "airflow.dag_processing.dagbag",
        "airflow.providers.standard.operators.python",
        "airflow.sdk.execution_time.task_runner",
        "perennial_airflow.assets",
        "perennial_airflow.operators",
        "perennial_airflow.params",
        "perennial_airflow.requests",
        "perennial_airflow.specs",
    ),
    "triggerer": ("perennial_airflow.triggers",),
}
#: With CT_LAUNCHER=pod only: the Kubernetes client takes seconds to import.
POD_MODULES = {"scheduler": "perennial_airflow.pods", "triggerer": "perennial_airflow.pod_trigger"}

for program, modules in MODULES.items():
    if program in sys.argv:
        if load_settings().launcher == "pod":
            import_module(POD_MODULES[program])
        for module in modules:
            import_module(module)


class PreloadPlugin(AirflowPlugin):
    """Registers nothing; Airflow wants a class to have loaded the module for."""

    name = "perennial_preload"
