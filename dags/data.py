"""`<source>_landing` watches landing; `<source>_data` ingests one delivery: check and ingest, features, online."""

from airflow.sdk import DAG
from perennial_airflow.assets import features_asset, features_event, landing_asset
from perennial_airflow.deliveries import landed_file
from perennial_airflow.operators import StartDataRunsOperator, StepOperator
from perennial_airflow.params import add_params, data_params
from perennial_airflow.refs import result
from perennial_airflow.specs import dag_settings, source_specs
from perennial_airflow.try_again import TryAgainLaterOperator
from perennial_airflow.wiring import check_wiring

WATCH = """
Starts one run of **{source}_data** for every file that lands at `{file}`, in the order of their days. The triggerer
does the watching. A file that is delivered again gets another run. While this DAG is switched off, deliveries wait.
A file that does not look like a delivery is reported once, in the note and the log of a run of this DAG.
"""

TAKE_IN = """
Takes in one delivery: **check** finds mistakes in the source's files, once for each change of them; **ingest** checks
the delivery against the source spec, quarantines the rows that break a rule and puts the rest in the lake, meanwhile:
it uses neither SQL nor Feast. After both, **features** computes the feature rows that the delivery affects, and the
models of the source are monitored. Meanwhile **materialize** puts the newest rows online.

When a run fails because something was away for longer than the tasks' retries, **try_again_later** queues it again, for
two days at most. It fails with the run, and its log says when the next run starts.

A run's id says which delivery it is for: feed, partition, how often that was delivered, fingerprint. To take a
partition in by hand, trigger this DAG and name it. The same content twice changes nothing.
"""

for spec in source_specs("landing"):
    landing = landing_asset(spec)
    doc = WATCH.format(source=spec.name, file=landed_file(spec.name, "<feed>", "<partition>.parquet"))
    with DAG(**dag_settings(spec, "landing", "landing"), schedule=[landing], doc_md=doc):
        StartDataRunsOperator(task_id="start_data_runs", source=spec.name, feeds=spec.feed_names, landing=landing)

for spec in source_specs("data"):
    source = {"source": spec.name}
    feed, partition = "{{ params.feed }}", "{{ params.partition }}"
    name = "{{ params.file or params.partition ~ '.parquet' }}"
    file = {"feed": feed, "partition": partition, "uri": landed_file(spec.name, feed, name)}
    with DAG(**dag_settings(spec, "data", "take in data"), schedule=None, doc_md=TAKE_IN) as dag:
        ingest = StepOperator(step="ingest", inputs={**source, **file})
        touched = {"days": result(ingest)["affected"], "table_versions": result(ingest)["table_versions"]}
        computed = {"emits": features_asset(spec.name), "event": features_event}
        features = StepOperator(step="features", inputs={**source, **touched}, **computed)
        check = StepOperator(step="check", inputs=source)
        check >> features
        versions = {"table_versions": result(features)["table_versions"]}
        last = StepOperator(step="materialize", inputs={**source, **versions})
        [check, ingest, features, last] >> TryAgainLaterOperator(task_id="try_again_later", source=spec.name)
    add_params(dag, data_params(spec))
    check_wiring(dag)
