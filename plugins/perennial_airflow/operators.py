"""The operators that DAG files use: StepOperator runs a step, StartDataRunsOperator starts a data run per delivery."""

import time
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Asset, BaseOperator
from airflow.sdk.observability.stats import Stats

from perennial_airflow.deliveries import Announced, Delivery, Reported, landing_folder, scan, strays
from perennial_airflow.launchers import LAUNCHERS
from perennial_airflow.runs import start_run
from training.settings import load_settings


def __getattr__(name: str) -> Any:
    """`StepOperator` is the operator of the launcher that CT_LAUNCHER names.

    It is looked up when a DAG file imports it, so that only CT_LAUNCHER=pod imports the Kubernetes client. Raises
    ConfigError when there is no such launcher, which Airflow shows as an import error of the DAG file.
    """
    if name != "StepOperator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return LAUNCHERS.find(load_settings().launcher)


class StartDataRunsOperator(BaseOperator):
    """Starts one run of `<source>_data` for every new delivery, in order, and records that in the asset state store.

    Also reports the strays in the landing folder, each once.

    It can be killed at any point and run again. It starts no run twice, because the id of a run names its delivery.
    """

    ui_color = "#e8f4ea"

    def __init__(self, *, source: str, feeds: list[str], landing: Asset, **kwargs: Any) -> None:
        super().__init__(inlets=[landing], **kwargs)
        self.source = source
        self.feeds = feeds
        self.landing = landing

    def execute(self, context: Any) -> list[str]:
        store = context["asset_state_store"][self.landing]
        folder = landing_folder(self.source)
        announced = Announced(store.get(Announced.KEY, {}))
        started = []
        for delivery in announced.new(scan(folder, self.feeds, time.time())):
            started.append(self._start(delivery, announced.number(delivery)))
            announced.add(delivery)
        store.set(Announced.KEY, announced.stored())
        self.log.info("%s: %d new deliveries%s", folder, len(started), "".join(f"\n  {run}" for run in started))
        self._report_strays(store)
        return started

    def _report_strays(self, store: Any) -> None:
        """Log each new stray, and set the metric to the number of all strays."""
        found = strays(self.source, self.feeds)
        for stray in Reported(store.get(Reported.KEY, {})).new(found):
            self.log.warning("Not a delivery, so it is not ingested: %s", stray)
        store.set(Reported.KEY, Reported.stored(found))
        Stats.gauge("perennial.landing.not_understood", len(found), tags={"source": self.source})

    def _start(self, delivery: Delivery, number: int) -> str:
        run_id = delivery.run_id(number)
        note = f"{delivery.feed.capitalize()} of {delivery.partition.replace('_', ' to ')}"
        note += "" if number == 1 else f", delivered again (delivery {number})"
        conf: Mapping[str, Any] = {"feed": delivery.feed, "partition": delivery.partition, "file": delivery.name}
        start_run(f"{self.source}_data", run_id, conf, note)
        return run_id
