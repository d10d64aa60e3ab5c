"""The assets that join a model's DAGs. An asset is a bell: what happened is in the lake, the registry, the ledger."""

from typing import Any

from airflow.sdk import Asset, AssetWatcher

from perennial_airflow.triggers import LandingTrigger


def landing_asset(model: str) -> Asset:
    """Files in the model's landing folder; watched by the triggerer."""
    watcher = AssetWatcher(name=f"{model}_landing", trigger=LandingTrigger(model=model))
    return Asset(name=f"{model}_landing", uri=f"x-perennial://{model}/landing", group=model, watchers=[watcher])


def features_asset(model: str) -> Asset:
    """Newly landed events or labels have become features."""
    return Asset(name=f"{model}_features", uri=f"x-perennial://{model}/features", group=model)


def retrain_asset(model: str) -> Asset:
    """A request to train waits in the ledger."""
    return Asset(name=f"{model}_retrain", uri=f"x-perennial://{model}/retrain", group=model)


def features_event(result: dict[str, Any], context: Any) -> dict[str, Any]:
    """What the event of the features asset carries after `materialize`: events may have drifted, labels tell it."""
    feed, partition = context["params"]["feed"], context["params"]["partition"]
    return {"as_of": result["as_of"], "partition": partition, "reason": f"New {feed}: {partition.replace('_', ' to ')}"}
