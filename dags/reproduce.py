"""`<model>_reproduce`: trains a registered version again from its recipe, and compares. By hand only."""

from airflow.sdk import DAG
from perennial_airflow.operators import StepOperator
from perennial_airflow.params import add_params, reproduce_params
from perennial_airflow.specs import dag_settings, model_specs
from perennial_airflow.wiring import check_wiring

DOC = """
Makes a version again from its recipe, which its MLflow run keeps: the table versions of the lake, the specs of that
time, parameters and seed. Dataset and model are made in an empty folder, without what the first training left. The
task fails when the dataset, a byte of the model or a metric differs; its log says what, and what has changed since.
"""

for spec in model_specs("reproduce"):
    with DAG(**dag_settings(spec, "reproduce", "make again"), schedule=None, doc_md=DOC) as dag:
        StepOperator(step="reproduce", inputs={"model": spec.name, "version": dag.param("version")})
    add_params(dag, reproduce_params())
    check_wiring(dag)
