"""The assets that connect a model's DAGs. An event only starts a run. The data is in the lake, registry and ledger."""

from typing import Any

from airflow.sdk import Asset, AssetWatcher

from perennial_airflow.triggers import LandingTrigger


def landing_asset(model: str) -> Asset:
    """Files in the model's landing folder, which the triggerer watches."""
    watcher = AssetWatcher(name=f"{model}_landing", trigger=LandingTrigger(model=model))
    return Asset(name=f"{model}_landing", uri=f"x-perennial://{model}/landing", group=model, watchers=[watcher])


def features_asset(model: str) -> Asset:
    """Features were computed from newly landed events or labels."""
    return Asset(name=f"{model}_features", uri=f"x-perennial://{model}/features", group=model)


def retrain_asset(model: str) -> Asset:
    """A request to train waits in the ledger."""
    return Asset(name=f"{model}_retrain", uri=f"x-perennial://{model}/retrain", group=model)


def features_event(result: dict[str, Any], context: Any) -> dict[str, Any]:
    """The extra of the features asset's event after `materialize`. The event starts a drift run."""
    feed, partition = context["params"]["feed"], context["params"]["partition"]
    return {"as_of": result["as_of"], "partition": partition, "reason": f"New {feed}: {partition.replace('_', ' to ')}"}
