"""`<source>_restore_online`: puts the newest feature rows of the lake online again. By hand only."""

from airflow.sdk import DAG
from perennial_airflow.operators import StepOperator
from perennial_airflow.specs import dag_settings, source_specs
from perennial_airflow.wiring import check_wiring

DOC = """
Fills the online store again after it was flushed, lost or replaced: **materialize** puts the newest feature row of each
entity online and deletes all others. A data run may write meanwhile; the newer rows stay. The next data run of the
source would do the same.
"""

for spec in source_specs("restore_online"):
    settings = dag_settings(spec, "restore_online", "restore the online store")
    with DAG(**settings, schedule=None, doc_md=DOC) as dag:
        StepOperator(step="materialize", inputs={"source": spec.name})
    check_wiring(dag)
