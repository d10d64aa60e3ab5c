"""Tasks start by forking the scheduler: what it has imported, they need not import. Saves about 4 s per task."""

import sys

from airflow.plugins_manager import AirflowPlugin

if "scheduler" in sys.argv:
    import perennial_airflow.operators
    import perennial_airflow.specs  # noqa: F401


class PreloadPlugin(AirflowPlugin):
    """Registers nothing; Airflow wants a class to have loaded the module for."""

    name = "perennial_preload"
