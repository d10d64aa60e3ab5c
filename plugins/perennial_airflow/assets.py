"""The assets that connect the DAGs. An event only starts a run. The data is in the lake, registry and ledger."""

from typing import Any

from airflow.sdk import Asset, AssetWatcher

from perennial_airflow.triggers import LandingTrigger
from training.contract.source_spec import SourceSpec


def landing_asset(spec: SourceSpec) -> Asset:
    """Files in the source's landing folder, which the triggerer watches."""
    source = spec.name
    watcher = AssetWatcher(name=f"{source}_landing", trigger=LandingTrigger(source=source, feeds=spec.feed_names))
    return Asset(name=f"{source}_landing", uri=f"x-perennial://{source}/landing", group=source, watchers=[watcher])


def features_asset(source: str) -> Asset:
    """Features were computed from newly landed events or labels. Every model of the source is monitored then."""
    return Asset(name=f"{source}_features", uri=f"x-perennial://{source}/features", group=source)


def retrain_asset(model: str) -> Asset:
    """A request to train waits in the ledger."""
    return Asset(name=f"{model}_retrain", uri=f"x-perennial://{model}/retrain", group=model)


def predictions_asset(model: str) -> Asset:
    """All events of some partitions have predictions that were made in batch. DAGs of others may be scheduled on it."""
    return Asset(name=f"{model}_predictions", uri=f"x-perennial://{model}/predictions", group=model)


def features_event(result: dict[str, Any], context: Any) -> dict[str, Any]:
    """The extra of the features asset's event after `features`. The event starts monitoring runs."""
    feed, partition = context["params"]["feed"], context["params"]["partition"]
    return {"as_of": result["as_of"], "partition": partition, "reason": f"New {feed}: {partition.replace('_', ' to ')}"}


def predictions_event(result: dict[str, Any], context: Any) -> dict[str, Any] | None:
    """The extra of the predictions asset's event after `score`; None when the run found nothing to score."""
    if not result["partitions"]:
        return None
    snapshot = result["snapshot"]
    said = {"as_of": snapshot["as_of"], "model_version": snapshot["champion_version"]}
    return {**said, **{name: result[name] for name in ("partitions", "window", "rows")}}


def backfill_event(result: dict[str, Any], context: Any) -> dict[str, Any] | None:
    """The extra of the features asset's event after a backfill; None when the monitors are not to start."""
    first, last, monitor = (context["params"][name] for name in ("first_day", "last_day", "monitor"))
    if not monitor:
        return None
    return {"as_of": result["as_of"], "partition": f"{first}_{last}", "reason": f"Backfill: {first} to {last}"}
