"""`<model>_monitor`: monitors the model in service. Daily, and when new events or labels have become features."""

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable
from perennial_airflow.assets import features_asset, retrain_asset
from perennial_airflow.operators import StepOperator
from perennial_airflow.refs import result
from perennial_airflow.requests import retrain_event
from perennial_airflow.specs import dag_settings, model_specs
from perennial_airflow.wiring import check_wiring

DOC = """
**drift** compares the current window with the training data of the version in service (the report's path is in the
log), **performance** measures that version on the labels that have come in since, **audit** computes logged features
again and reports those that differ. **decide_retraining** then decides whether to train. If so, the asset `{retrain}`
gets an event and **{model}_train** starts. **decide_retraining** fails, after it has decided, if drift or performance
could not be measured in several runs in succession.

**drift** resolves the snapshot of the run: the knowledge horizon, the versions of all tables, and the version in
service. All tasks of the run read this snapshot, whatever lands meanwhile. To look at newer data, start another run.
"""

for spec in model_specs("monitor"):
    model, retrain = {"model": spec.name}, retrain_asset(spec.name)
    schedule = AssetOrTimeSchedule(
        timetable=CronTriggerTimetable(spec.schedule.monitor, timezone="UTC"), assets=[features_asset(spec.source.name)]
    )
    doc = DOC.format(retrain=retrain.name, model=spec.name)
    with DAG(**dag_settings(spec, "monitor", "monitor"), schedule=schedule, doc_md=doc) as dag:
        drift = StepOperator(step="drift", inputs={**model, "run": "{{ run_id }}"})
        pinned = {**model, "snapshot": result(drift)["snapshot"]}
        performance = StepOperator(step="performance", inputs=pinned)
        StepOperator(step="audit", inputs=pinned)
        StepOperator(
            step="decide_retraining",
            inputs={**model, "drift": result(drift), "performance": result(performance)},
            emits=retrain,
            event=retrain_event,
        )
    check_wiring(dag)
