"""Backups of the whole state, taken while the loop runs, and their restore.

What refers is copied before what it refers to. Nothing that is referred to is ever changed or removed by the loop, so
everything that a copy names exists when its own turn comes:

1. Airflow's database: task results name requests, versions, table versions and files.
2. The ledger: names versions and table versions.
3. The logs of the tables of predictions: rows name versions.
4. MLflow's database: versions name runs, and with them files; tags name table versions.
5. MLflow's artifacts, the work folder, Feast's files: name table versions.
6. The logs of feature tables, which name versions of feeds; then those of feeds.
7. The data files of all tables, which the logs name.
"""
