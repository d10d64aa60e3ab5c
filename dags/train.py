"""`<model>_train`: from a request to a version that serves. By the clock, by the retrain asset, or by hand."""

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, Param, task
from perennial_airflow.assets import retrain_asset
from perennial_airflow.operators import StepOperator
from perennial_airflow.refs import FromRun, result
from perennial_airflow.requests import retrain_event, training_request
from perennial_airflow.specs import dag_settings, specs

DOC = """
**request** puts the reason to the broker, whose answer is in the task's log and, for good, in the ledger. Granted:
**dataset** joins labels and features point-in-time, **train** fits each estimator, **evaluate** reaches a verdict
against the version in service, **register** and **rollout** bring a better one to serve. Not granted, or the verdict is
negative: the rest is skipped, and the log says why.

A run that a request started shows the reason under its asset event.
"""

for spec in specs("train"):
    model, estimators = spec.name, sorted(spec.training.estimators)
    params = {
        "estimators": Param(
            estimators,
            type="array",
            items={"enum": estimators},
            examples=estimators,
            minItems=1,
            title="Estimators",
            description="The best of these is the challenger.",
        ),
        "window_days": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Training window, days",
            description=f"Empty: as in the model spec, {spec.training.window_days}.",
        ),
        "as_of": Param(
            None,
            type=["null", "string"],
            format="date",
            title="As of",
            description="Nothing that was not known by this midnight (UTC) is used. Empty: all there is.",
        ),
        "reason": Param("By hand", type="string", minLength=1, title="Reason", description="Kept in the ledger."),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Train whatever the policy says, and register whatever the verdict says.",
        ),
    }
    retrain = retrain_asset(model)
    schedule = AssetOrTimeSchedule(
        timetable=CronTriggerTimetable(spec.schedule.train, timezone="UTC"), assets=[retrain]
    )
    with DAG(**dag_settings(spec, "train", "train"), schedule=schedule, params=params, doc_md=DOC) as dag:
        request = StepOperator(
            step="request", inputs=FromRun(training_request), also={"model": model}, emits=retrain, event=retrain_event
        )
        why, force = result(request), dag.param("force")
        dataset = StepOperator(
            step="dataset",
            run_if=[why["granted"]],
            inputs={"model": model, "as_of": why["as_of"], "window_days": dag.param("window_days")},
        )
        data = result(dataset)

        @task(task_id="estimators")
        def chosen(params):
            """Those that this run was asked for."""
            return [{"estimator": name} for name in params["estimators"]]

        train = StepOperator.partial(
            task_id="train",
            step="train",
            map_index_template="{{ task.also['estimator'] }}",
            inputs={
                "model": model,
                "dataset_uri": data["uri"],
                "seed": data["seed"],
                "reason": why["reason"],
            },
        ).expand(also=chosen())
        candidates = result(train).each("estimator", "run_id", "artifact_uri", "digest")
        evaluate = StepOperator(
            step="evaluate",
            inputs={"model": model, "candidates": candidates, "dataset_uri": data["uri"], "seed": data["seed"]},
        )
        challenger, verdict = result(evaluate)["challenger"], result(evaluate)["verdict"]
        register = StepOperator(
            step="register",
            run_if=[verdict["promote"], force],
            inputs={
                "model": model,
                "challenger": challenger,
                "dataset_uri": data["uri"],
                "verdict": verdict,
                "force": force,
                "reason": why["reason"],
            },
        )
        rollout = StepOperator(
            step="rollout", inputs={"model": model, "version": result(register)["version"], "reason": why["reason"]}
        )
