"""`<model>_score`: the champion scores events in batch. After new data, or by schedule, as the model spec says."""

from airflow.sdk import DAG, CronTriggerTimetable
from perennial_airflow.assets import features_asset, predictions_asset, predictions_event
from perennial_airflow.operators import StepOperator
from perennial_airflow.params import add_params, score_params
from perennial_airflow.specs import dag_settings, model_specs
from perennial_airflow.wiring import check_wiring

from training.contract.scoring_spec import NEW_DATA

DOC = """
**score** writes the champion's predictions for the events of new partitions, and of partitions that were delivered
again, to the table `predictions`. An event is scored once; one that was answered already, by the service or by an
earlier run, is left out. Then the asset `{predictions}` gets an event: other DAGs can have it as their schedule. Its
extra names the partitions, their days, the model version and the number of predictions.

To score a partition again with a new champion, or one whose events are too old to be scored by themselves, trigger
this DAG and name the partition. Without a champion the run succeeds and writes nothing.
"""

for spec in model_specs("score"):
    if spec.scoring is None:
        continue
    predictions = predictions_asset(spec.name)
    if spec.scoring.when == NEW_DATA:
        schedule = [features_asset(spec.source.name)]
    else:
        schedule = CronTriggerTimetable(spec.scoring.when, timezone="UTC")
    settings = dag_settings(spec, "score", "score in batch")
    with DAG(**settings, schedule=schedule, doc_md=DOC.format(predictions=predictions.name)) as dag:
        inputs = {"model": spec.name, "partition": dag.param("partition"), "run": "{{ run_id }}"}
        StepOperator(step="score", inputs=inputs, emits=predictions, event=predictions_event)
    add_params(dag, score_params())
    check_wiring(dag)
