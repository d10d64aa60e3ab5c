"""`<source>_backfill`: ingests all deliveries of a range of days again, and computes their features. By hand only."""

from airflow.sdk import DAG, task
from perennial_airflow.assets import backfill_event, features_asset, landing_asset
from perennial_airflow.backfill import PlanBackfillOperator, RecordBackfillOperator, chunks, newest_versions
from perennial_airflow.operators import StepOperator
from perennial_airflow.params import add_params, backfill_params
from perennial_airflow.refs import FromRun
from perennial_airflow.specs import dag_settings, source_specs
from perennial_airflow.wiring import check_wiring

DOC = """
Takes in the deliveries of a range of days that lie in landing: **plan** lists them, **ingest** takes them in one after
the other, the oldest first; **features** then computes the feature rows that they affect, a month at a time, from the
versions of the tables after the last **ingest**; **materialize** puts the newest online.

The name of each mapped task says how far the run is. The monitors start once, at the end, or not at all (parameter
`monitor`); so does training. A delivery that is in the lake already is skipped, its features are computed again. To go
on after a failure, clear the failed tasks; another run of the same range gives the same rows.

Switch **{source}_landing** off before you land the files, or each of them gets a data run. **record** notes at the end
which deliveries are taken in, so that it starts none for them when it is switched on again.
"""
#: The label of a mapped task: its number, of how many, and what it does.
OF = "{{ ti.map_index + 1 }} of {{ ti.xcom_pull(task_ids='%s') | length }}: "
DELIVERY = "{{ task.more_inputs['feed'] }} {{ task.more_inputs['partition'] }}"
MONTH = "{{ task.more_inputs['days']['start'] }} to {{ task.more_inputs['days']['end'] }}"
#: One mapped task at a time, in the order of the plan.
ONE = {"max_active_tis_per_dagrun": 1}

for spec in source_specs("backfill"):
    source, landing, online = {"source": spec.name}, landing_asset(spec), features_asset(spec.name)
    doc = DOC.format(source=spec.name)
    with DAG(**dag_settings(spec, "backfill", "backfill"), schedule=None, doc_md=doc) as dag:
        plan = PlanBackfillOperator(task_id="plan", source=spec.name, feeds=spec.feed_names)
        ingest = StepOperator.partial(
            task_id="ingest", step="ingest", inputs=source, map_index_template=OF % "plan" + DELIVERY, **ONE
        ).expand(more_inputs=plan.output)
        StepOperator(step="check", inputs=source) >> ingest
        months = task(chunks, task_id="months")(ingest.output)
        features = StepOperator.partial(
            task_id="features", step="features", inputs=source, map_index_template=OF % "months" + MONTH, **ONE
        ).expand(more_inputs=months)
        versions = {"inputs": FromRun(newest_versions), "more_inputs": source}
        last = StepOperator(step="materialize", **versions, emits=online, event=backfill_event)
        features >> last >> RecordBackfillOperator(task_id="record", landing=landing)
    add_params(dag, backfill_params())
    check_wiring(dag)
