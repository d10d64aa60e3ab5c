"""`<model>_drift`: has the world left the model behind? Daily, and when new events or labels have become features."""

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable
from perennial_airflow.assets import features_asset, retrain_asset
from perennial_airflow.operators import StepOperator
from perennial_airflow.refs import result
from perennial_airflow.requests import retrain_event
from perennial_airflow.specs import dag_settings, specs
from perennial_airflow.wiring import check_wiring

DOC = """
**drift** compares the current window with the training data of the version in service (the report's path is in the
log), **performance** measures that version on the labels that have come in since, **audit** computes logged features
again and reports those that differ, **decide_retraining** decides whether these results are a reason to train. If so,
the asset `{retrain}` gets an event and **{model}_train** starts. **decide_retraining** fails, after it has decided, if
drift or performance could not be measured in several runs in succession.
"""

for spec in specs("drift"):
    model, retrain = spec.name, retrain_asset(spec.name)
    schedule = AssetOrTimeSchedule(
        timetable=CronTriggerTimetable(spec.schedule.drift, timezone="UTC"), assets=[features_asset(model)]
    )
    doc = DOC.format(retrain=retrain.name, model=model)
    with DAG(**dag_settings(spec, "drift", "watch for drift"), schedule=schedule, doc_md=doc) as dag:
        drift = StepOperator(step="drift", inputs={"model": model})
        found = result(drift)
        performance = StepOperator(
            step="performance",
            inputs={"model": model, "as_of": found["as_of"], "champion_version": found["champion_version"]},
        )
        StepOperator(step="audit", inputs={"model": model, "as_of": found["as_of"]})
        request = StepOperator(
            step="decide_retraining",
            inputs={"model": model, "drift": found, "performance": result(performance)},
            emits=retrain,
            event=retrain_event,
        )
    check_wiring(dag)
