"""`<model>_backtest`: replays history under several retraining policies, and compares them. By hand only."""

from airflow.sdk import DAG
from perennial_airflow.operators import StepOperator
from perennial_airflow.params import add_params, backtest_params
from perennial_airflow.specs import dag_settings, model_specs
from perennial_airflow.wiring import check_wiring

DOC = """
Replays the past days under several retraining policies: when each would have asked for a training, what the broker
would have said, what the training and its verdict would have given, and how good the model in service would have been.
Nothing of it touches the models in service. The log ends with the table and a recommendation; the run `backtest` of the
model's experiment in MLflow keeps them, with pictures. A run that is cleared goes on where it was.
"""

for spec in model_specs("backtest"):
    with DAG(**dag_settings(spec, "backtest", "compare policies"), schedule=None, doc_md=DOC) as dag:
        names = ("policies", "start", "end", "look_every_days")
        StepOperator(step="backtest", inputs={"model": spec.name, **{name: dag.param(name) for name in names}})
    add_params(dag, backtest_params())
    check_wiring(dag)
