"""`<source>_retention`: deletes what nobody needs any more, of a source and of the models that learn from it."""

from airflow.sdk import DAG, CronTriggerTimetable, task
from perennial_airflow.operators import StepOperator
from perennial_airflow.specs import dag_settings, models_that_learn_from, source_specs
from perennial_airflow.wiring import check_wiring

DOC = """
Every night: **clean_source** deletes earlier versions of the source's tables, but none that a registered model version
was made of; **clean_model** deletes old work files, reports, and artifacts of MLflow runs that were not registered. The
sections `retention` of the specs say how old. Registered versions, the ledger, events and labels stay.
"""

for spec in source_specs("retention"):
    schedule = CronTriggerTimetable("30 2 * * *", timezone="UTC")
    settings = dag_settings(spec, "retention", "delete what is old")
    with DAG(**settings, schedule=schedule, doc_md=DOC) as dag:
        StepOperator(step="clean_source", inputs={"source": spec.name})
        models = task(models_that_learn_from, task_id="models")(spec.name)
        StepOperator.partial(
            task_id="clean_model", step="clean_model", map_index_template="{{ task.more_inputs['model'] }}", inputs={}
        ).expand(more_inputs=models)
    check_wiring(dag)
