"""Backups of the whole state, taken while the loop runs, and their restore.

Whatever refers to something else is copied before it. The loop never changes or removes what is referred to, so
everything that a copy names still exists when it is copied:

1. Airflow's database: task results name requests, versions, table versions and files.
2. The ledger: names versions and table versions.
3. The logs of the tables of predictions: rows name versions.
4. MLflow's database: versions name runs, and with them files; tags name table versions.
5. MLflow's artifacts, the work folder, Feast's files: name table versions.
6. The logs of feature tables, which name versions of feeds; then those of feeds.
7. The data files of all tables, which the logs name.
"""
