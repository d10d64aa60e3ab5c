"""`<source>_forget`: removes the rows of a person. By hand only."""

from airflow.sdk import DAG
from perennial_airflow.operators import StepOperator
from perennial_airflow.params import add_params, forget_params
from perennial_airflow.specs import dag_settings, source_specs
from perennial_airflow.wiring import check_wiring

DOC = """
Removes the rows of a person, named by an entity's column and value, from the tables of the source, from predictions,
quarantine, the online store, work files and the artifacts of model versions. Versions that learned from the rows serve
on, and cannot be made again. Start it with **Dry run** first; docs/privacy.md says what stays.

Airflow keeps the parameters of a run, so the value stays in Airflow's database and in the log of the task until these
are cleaned. `make forget` leaves neither.
"""

for spec in source_specs("forget"):
    with DAG(**dag_settings(spec, "forget", "forget a person"), schedule=None, doc_md=DOC) as dag:
        inputs = {"source": spec.name, "entity": dag.param("entity"), "dry_run": dag.param("dry_run")}
        StepOperator(step="forget", inputs=inputs)
    add_params(dag, forget_params(spec))
    check_wiring(dag)
