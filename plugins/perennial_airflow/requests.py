"""How a retraining request starts a training run: the ledger keeps the decision, the retrain asset only starts runs.

Around `max_active_runs=1` Airflow may merge, lose or repeat asset events. None of that matters here. The result of
every `decide_retraining` step lists the granted requests that wait, and the task sends an event for the oldest of them.
A run whose request another run has taken ends without training. A run that fails releases its request: the request
waits, and the monitor DAG sends an event for it again.
"""

from collections.abc import Mapping
from typing import Any

#: How the task of a training run that releases the request differs from others.
WHEN_THE_RUN_FAILED = {
    "trigger_rule": "one_failed",
    "then_fail": "The run failed. Unless a person asked for it, its request waits for another run.",
}


def retrain_event(result: dict[str, Any], context: Any) -> dict[str, Any] | None:
    """What the event of the retrain asset carries after `decide_retraining`; None when no granted request waits."""
    if result["granted"] and result["request_id"] in result["waiting"]:
        return {key: result[key] for key in ("request_id", "trigger", "as_of", "reason")}
    if result["waiting"]:
        return {"request_id": result["waiting"][0], "reason": "Granted before, and no run has taken it yet"}
    return None


def training_request(context: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a training run's `decide_retraining`, but for the model: why this run was started.

    For a run by hand it is the run's parameters, for a scheduled run the schedule. For an event of the retrain asset it
    is the granted request that the event names. An event without one is a new request.
    """
    run = context["dag_run"]
    events = [event for found in context["triggering_asset_events"].values() for event in found]
    if events:
        extras = [event.extra or {} for event in events]
        named = [extra["request_id"] for extra in extras if extra.get("request_id")]
        if named:
            return {"request_id": named[0], "run": run.run_id}
        trigger, reason = extras[0].get("trigger", "new_data"), extras[0].get("reason", "An event of the retrain asset")
        return {"trigger": trigger, "as_of": extras[0].get("as_of"), "reason": reason, "run": run.run_id}
    if run.run_type == "scheduled":
        return {"trigger": "schedule", "reason": "By schedule", "run": run.run_id}
    params = context["params"]
    # A run that was started before the form had `change` has none.
    request = {key: params[key] for key in ("as_of", "reason", "force")} | {"change": params.get("change")}
    return {"trigger": "person", **request, "run": run.run_id, "requested_by": run.triggering_user_name or ""}
