"""The building blocks of the DAGs: steps as tasks, the landing watcher, the wiring of retraining requests.

Airflow must be started with

- `AIRFLOW__CORE__DAGS_FOLDER` = dags/ and `AIRFLOW__CORE__PLUGINS_FOLDER` = plugins/, which puts this package on
  the path, and `PYTHONPATH` = the repository's root, so that `training` can be imported;
- the `CT_*` settings, the same for all of Airflow's processes: the triggerer watches the landing folder, the DAG
  processor reads the model specs, tasks hand them to the steps;
- `AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION=False`, unless someone is to switch every model on by hand;
- `AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME=0.25` (0 with the executor of this package, which waits itself) and
  `AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL=1`, which with the preload plugin bring a task's own cost from about 1.1 s
  to 0.3 s.
"""
