"""`<model>_landing` watches the landing folder; `<model>_data` takes one delivery in: ingest, features, materialize."""

from airflow.sdk import DAG, Param
from perennial_airflow.assets import features_asset, features_event, landing_asset
from perennial_airflow.deliveries import FEEDS, landed_file
from perennial_airflow.operators import StartDataRunsOperator, StepOperator
from perennial_airflow.refs import result
from perennial_airflow.specs import dag_settings, specs

WATCH = """
Rings when files have landed in `{landing}`, and starts one run of **{data}** for each.

The watching is done by the triggerer. A file delivered again, with other content or time, gets another run.
Switch this DAG off to let deliveries wait; nothing is lost.
"""

TAKE_IN = """
Takes in one delivery: checks it against the model spec, quarantines the rows that break a rule, puts the rest in the
lake, computes the feature rows that it touches and puts the newest online.

The run's id says which delivery it is: feed, partition, how often it was delivered, fingerprint. To take a partition
in by hand, trigger this DAG and name it; the same content twice changes nothing.
"""

for spec in specs("landing"):
    model, landing = spec.name, landing_asset(spec.name)
    doc = WATCH.format(landing=landed_file(model, "<feed>", "<partition>"), data=f"{model}_data")
    with DAG(**dag_settings(spec, "landing", "landing"), schedule=[landing], doc_md=doc):
        StartDataRunsOperator(task_id="start_data_runs", model=model, landing=landing)

for spec in specs("data"):
    model = spec.name
    params = {
        "feed": Param("events", enum=[*FEEDS], title="Feed"),
        "partition": Param(
            "2026-01-05", type="string", title="Partition", description="A day, or two with `_` between: both ends in"
        ),
    }
    with DAG(**dag_settings(spec, "data", "take in data"), schedule=None, params=params, doc_md=TAKE_IN) as dag:
        feed, partition = "{{ params.feed }}", "{{ params.partition }}"
        uri = landed_file(model, feed, partition)
        ingest = StepOperator(step="ingest", inputs={"model": model, "feed": feed, "partition": partition, "uri": uri})
        features = StepOperator(
            step="features",
            inputs={
                "model": model,
                "days": result(ingest)["affected"],
                "table_versions": result(ingest)["table_versions"],
            },
        )
        materialize = StepOperator(
            step="materialize",
            inputs={"model": model, "table_versions": result(features)["table_versions"]},
            emits=features_asset(model),
            event=features_event,
        )
