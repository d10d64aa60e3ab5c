"""`<source>_replay_quarantine`: validates quarantined rows again, and computes their features. By hand only."""

from airflow.sdk import DAG
from perennial_airflow.deliveries import landed_file
from perennial_airflow.operators import StepOperator
from perennial_airflow.params import add_params, replay_quarantine_params
from perennial_airflow.refs import result
from perennial_airflow.specs import dag_settings, source_specs
from perennial_airflow.wiring import check_wiring

DOC = """
**replay_quarantine** judges the quarantined rows of a partition, or of all, by the rules of the spec as it is now.
Rows that hold enter the lake; the others stay, with today's reasons. A file with corrected rows, at `{file}`,
takes the place of the quarantined rows with the same ids. **features** computes the feature rows of the days that these
events affect, as if they had come in time; **materialize** puts the newest online. The ledgers of the models keep the
reason.

`make quarantine SOURCE={source}` lists what is in quarantine.
"""

for spec in source_specs("replay_quarantine"):
    source = {"source": spec.name}
    doc = DOC.format(source=spec.name, file=landed_file(spec.name, "_corrections", "<file>.parquet"))
    with DAG(**dag_settings(spec, "replay_quarantine", "replay quarantine"), schedule=None, doc_md=doc) as dag:
        wanted = {name: dag.param(name) for name in ("feed", "partition", "corrections", "reason")}
        who = {"requested_by": "{{ dag_run.triggering_user_name or '' }}", "run": "{{ run_id }}"}
        replay = StepOperator(step="replay_quarantine", inputs={**source, **wanted, **who})
        touched = {"days": result(replay)["affected"], "table_versions": result(replay)["table_versions"]}
        features = StepOperator(step="features", inputs={**source, **touched})
        StepOperator(step="materialize", inputs={**source, "table_versions": result(features)["table_versions"]})
    add_params(dag, replay_quarantine_params(spec))
    check_wiring(dag)
