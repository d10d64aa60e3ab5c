"""The assets that join a model's DAGs. An asset is a bell: what happened is in the lake, the registry, the ledger."""

from typing import Any

from airflow.sdk import Asset, AssetWatcher

from perennial_airflow.triggers import LandingTrigger


def landing_asset(model: str) -> Asset:
    """Files in the model's landing folder; watched by the triggerer."""
    watcher = AssetWatcher(name=f"{model}_landing", trigger=LandingTrigger(model=model))
    return Asset(name=f"{model}_landing", uri=f"x-perennial://{model}/landing", group=model, watchers=[watcher])


def features_asset(model: str) -> Asset:
    """Feature rows of newly landed events are online."""
    return Asset(name=f"{model}_features", uri=f"x-perennial://{model}/features", group=model)


def retrain_asset(model: str) -> Asset:
    """A request to train waits in the ledger."""
    return Asset(name=f"{model}_retrain", uri=f"x-perennial://{model}/retrain", group=model)


def features_event(result: dict[str, Any], context: Any) -> dict[str, Any] | None:
    """What the event of the features asset carries after `materialize`; None for labels: events drift."""
    params = context["params"]
    if params["feed"] != "events":
        return None
    partition = params["partition"]
    return {"as_of": result["as_of"], "partition": partition, "reason": f"New events: {partition.replace('_', ' to ')}"}
