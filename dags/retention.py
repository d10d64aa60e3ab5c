"""`<source>_retention`: verifies and cleans the state of a source and of the models that learn from it."""

from airflow.sdk import DAG, CronTriggerTimetable, task
from perennial_airflow.operators import StepOperator
from perennial_airflow.specs import dag_settings, models_that_learn_from, source_specs
from perennial_airflow.wiring import check_wiring

DOC = """
Every night: **verify_source** reads files of the source's tables, each within `retention.verify_nights` nights and new
ones first; **verify_model** reads the ledger and the registered versions. They fail when something was changed since it
was written, and name it. The log of **verify_model** names the newest entry of the ledger. **clean_source** deletes
earlier versions of the source's tables, but none that a registered model version was made of; **clean_model** deletes
old work files, reports, and artifacts of MLflow runs that were not registered. The sections `retention` of the specs
say how old. Registered versions, the ledger, events and labels stay.
"""

for spec in source_specs("retention"):
    schedule = CronTriggerTimetable("30 2 * * *", timezone="UTC")
    settings = dag_settings(spec, "retention", "verify, delete what is old")
    with DAG(**settings, schedule=schedule, doc_md=DOC) as dag:
        StepOperator(step="clean_source", inputs={"source": spec.name})
        StepOperator(step="verify_source", inputs={"source": spec.name, "share": True})
        models = task(models_that_learn_from, task_id="models")(spec.name)
        for step in ("clean_model", "verify_model"):
            StepOperator.partial(
                task_id=step, step=step, map_index_template="{{ task.more_inputs['model'] }}", inputs={}
            ).expand(more_inputs=models)
    check_wiring(dag)
