"""`<model>_train`: from a request to a version that serves. By the clock, by the retrain asset, or by hand."""

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, task
from perennial_airflow.assets import retrain_asset
from perennial_airflow.operators import StepOperator
from perennial_airflow.params import training_params
from perennial_airflow.refs import FromRun, result
from perennial_airflow.requests import WHEN_THE_RUN_FAILED, retrain_event, training_request
from perennial_airflow.specs import dag_settings, specs
from perennial_airflow.wiring import check_wiring

DOC = """
**decide_retraining** grants or refuses the request to train; the reason is in the task's log and in the ledger. When
it is granted, **dataset** joins labels and features point-in-time, **train** fits each estimator, **evaluate** reaches
a verdict against the version in service, **register** and **rollout** bring a better one into service. Whatever is not
granted or not promoted is skipped, and the log says why. An estimator whose **train** fails drops out: **evaluate**
names it and goes on with the others. A run that waits or is started twice does no harm.
"""


@task(task_id="estimators")
def chosen(params):
    """The estimators that this run was asked for: all of the model's, unless a person chose."""
    return [{"estimator": name} for name in params["estimators"]]


for spec in specs("train"):
    model = {"model": spec.name}
    retrain, weekly = retrain_asset(spec.name), CronTriggerTimetable(spec.schedule.train, timezone="UTC")
    settings = {**dag_settings(spec, "train", "train"), "params": training_params(spec), "doc_md": DOC}
    with DAG(**settings, schedule=AssetOrTimeSchedule(timetable=weekly, assets=[retrain])) as dag:
        event = {"emits": retrain, "event": retrain_event}
        decide = StepOperator(step="decide_retraining", inputs=FromRun(training_request), more_inputs=model, **event)
        why, force = result(decide), dag.param("force")

        horizon = {"as_of": why["as_of"], "window_days": dag.param("window_days")}
        dataset = StepOperator(step="dataset", run_if=[why["granted"]], inputs={**model, **horizon})
        on = {**model, "dataset_uri": result(dataset)["uri"], "seed": result(dataset)["seed"]}

        train = StepOperator.partial(
            task_id="train",
            step="train",
            map_index_template="{{ task.more_inputs['estimator'] }}",
            inputs={**on, "reason": why["reason"]},
        ).expand(more_inputs=chosen())
        # An estimator that fails drops out; evaluate goes on with the others, and fails when there are none.
        tried = {"candidates": result(train).each("estimator", "run_id", "artifact_uri", "digest")}
        tried["dropped_out"] = result(train).missing("estimator", of=dag.param("estimators"))
        evaluate = StepOperator(step="evaluate", trigger_rule="all_done_min_one_success", inputs={**on, **tried})
        best, verdict = result(evaluate)["challenger"], result(evaluate)["verdict"]
        case = {"challenger": best, "dataset_uri": on["dataset_uri"], "verdict": verdict}
        case |= {"champion_version": result(evaluate)["champion_version"], "force": force, "reason": why["reason"]}
        register = StepOperator(step="register", run_if=[verdict["promote"], force], inputs={**model, **case})
        registered = {"version": result(register)["version"], "reason": why["reason"]}
        rollout = StepOperator(step="rollout", inputs={**model, **registered})

        failed = {**model, "request_id": why["request_id"], "run": "{{ run_id }}", "failed": True}
        back = StepOperator(step="decide_retraining", task_id="release_request", inputs=failed, **WHEN_THE_RUN_FAILED)
        [dataset, evaluate, register, rollout] >> back
    check_wiring(dag)
