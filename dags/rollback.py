"""`<model>_rollback`: returns to the previous version. By hand only."""

from airflow.sdk import DAG
from perennial_airflow.operators import StepOperator
from perennial_airflow.params import add_params, rollback_params
from perennial_airflow.specs import dag_settings, model_specs
from perennial_airflow.wiring import check_wiring

DOC = """
Makes an earlier version the champion again and waits until every replica serves it. Without a version: the one that
served before the present one. The version taken out of service stays in the registry.
"""

for spec in model_specs("rollback"):
    with DAG(**dag_settings(spec, "rollback", "roll back"), schedule=None, doc_md=DOC) as dag:
        request = {"version": dag.param("version"), "reason": dag.param("reason"), "run": "{{ run_id }}"}
        user = {"requested_by": "{{ dag_run.triggering_user_name or '' }}"}
        StepOperator(step="rollback", inputs={"model": spec.name, **request, **user})
    add_params(dag, rollback_params())
    check_wiring(dag)
