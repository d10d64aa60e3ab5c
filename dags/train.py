"""`<model>_train`: from a request to a version in service. By schedule, by the retrain asset, or by hand."""

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, task
from perennial_airflow.approvals import AskForApprovalOperator
from perennial_airflow.assets import retrain_asset
from perennial_airflow.mapped_training import CANDIDATE, NAMED_BY, chosen
from perennial_airflow.operators import StepOperator
from perennial_airflow.params import add_params, training_params
from perennial_airflow.refs import FromRun, result
from perennial_airflow.requests import WHEN_THE_RUN_FAILED, retrain_event, training_request
from perennial_airflow.search_tasks import search_in_parts
from perennial_airflow.specs import dag_settings, model_specs
from perennial_airflow.wiring import check_wiring

DOC = """
**decide_retraining** grants or refuses the request to train, and resolves the snapshot that all tasks but **rollout**
read: horizon, table versions, version in service. **dataset** joins labels and features point-in-time, **train** fits
each estimator on each window, **evaluate** compares the best with the champion, **register** and **rollout** bring a
better one into service, or **ask_for_approval** starts `<model>_approval`, in which a person decides. The rest is
skipped; the log says why. An estimator whose **train** fails drops out; so does a part of a **search**. A cleared task
reads the same snapshot: after missing data has landed, start another run. When a run fails, **release_request** hands
its request on, unless a person made it.
"""

for spec in model_specs("train"):
    model, retrain = {"model": spec.name}, retrain_asset(spec.name)
    when = spec.schedule.train and CronTriggerTimetable(spec.schedule.train, timezone="UTC")
    schedule = AssetOrTimeSchedule(timetable=when, assets=[retrain]) if when else [retrain]
    with DAG(**dag_settings(spec, "train", "train"), schedule=schedule, doc_md=DOC) as dag:
        request = {"inputs": FromRun(training_request), "more_inputs": model}
        decide = StepOperator(step="decide_retraining", **request, emits=retrain, event=retrain_event)
        decision, force = result(decide), dag.param("force")
        pinned = {**model, "snapshot": decision["snapshot"]}
        window = {"window_days": dag.param("window_days"), "change": decision["change"]}
        dataset = StepOperator(step="dataset", run_if=[decision["granted"]], inputs={**pinned, **window})
        data = {"dataset_uri": result(dataset)["uri"], "seed": result(dataset)["seed"]}
        with_data = {"run_if": [data["dataset_uri"]]}
        fit, rules = search_in_parts(spec, {**model, **data, "reason": decision["reason"]}, with_data)
        asked_for = task(chosen, task_id="estimators")(result(dataset)["windows"])
        mapped = {"task_id": "train", "step": "train", "map_index_template": CANDIDATE}
        train = StepOperator.partial(**mapped, inputs=fit, **rules).expand(more_inputs=asked_for)
        # An estimator that fails drops out; evaluate fails when there is none left.
        candidates = {"candidates": result(train).each(*NAMED_BY, "run_id", "artifact_uri", "digest")}
        candidates["dropped_out"] = result(train).missing(*NAMED_BY, of=asked_for)
        rules = {"trigger_rule": "all_done_min_one_success", **with_data}
        evaluate = StepOperator(step="evaluate", inputs={**pinned, **data, **candidates}, **rules)
        verdict = {name: result(evaluate)[name] for name in ("challenger", "verdict", "champion_version")}
        this = {**model, "reason": decision["reason"], "run": "{{ run_id }}"}
        promote = {**this, **verdict, "force": force, "requested_by": "{{ dag_run.triggering_user_name or '' }}"}
        may = {"run_if": [verdict["verdict"]["promote"], result(evaluate)["ask"], force]}
        registered = result(register := StepOperator(step="register", inputs=promote, **may))
        ask = AskForApprovalOperator(task_id="ask_for_approval", model=spec.name, about=registered)
        to_serve = {name: registered[name] for name in ("version", "digest", "judged_against")}
        rollout = StepOperator(step="rollout", run_if=[registered["roll_out"]], inputs={**this, **to_serve})
        failed = {**model, "request_id": decision["request_id"], "run": "{{ run_id }}", "failed": True}
        last = {"task_id": "release_request", **WHEN_THE_RUN_FAILED}
        [dataset, evaluate, register, ask, rollout] >> StepOperator(step="decide_retraining", inputs=failed, **last)
    add_params(dag, training_params(spec))
    check_wiring(dag)
