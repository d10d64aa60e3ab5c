"""The three models of this repository in one running stack: small specs, their data, and what they must end with."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import yaml

from local import flights, generator
from local.traffic import Serving, as_json, served_models
from training.contract.base import Days
from training.contract.model_spec import MODELS_DIR

#: Model → its source.
SOURCES = {"card_fraud": "card_payments", "flight_delay": "flights", "flight_outcome": "flights"}
#: Small, so that a test is quick.
_ESTIMATORS = {"hist_gradient_boosting": {"max_iter": 40, "max_leaf_nodes": 15}}
_PAYMENTS = Days(start=date(2026, 1, 5), end=date(2026, 3, 2))
#: Enough for a window of 28 days, a holdout of 7, and twice the label delay of 2 days.
_FLIGHTS = Days(start=date(2013, 6, 3), end=date(2013, 7, 13))
_WEEK = timedelta(days=7)


def write_specs(folder: Path) -> Path:
    """Write the specs of the three models, with one small estimator and short windows. Returns `folder`."""
    folder.mkdir()
    for model, source in SOURCES.items():
        spec = yaml.safe_load((MODELS_DIR / f"{model}.yaml").read_text())
        spec["training"]["estimators"] = _ESTIMATORS
        if source == "flights":
            spec["training"] |= {"window_days": 28, "holdout_days": 7}
        (folder / f"{model}.yaml").write_text(yaml.safe_dump(spec, sort_keys=False))
    return folder


class Data:
    """What lands for the three models."""

    def __init__(self) -> None:
        self._payments = generator.Generator(seed=7, customers=400, terminals=800)
        self._flights = flights.read_flights()

    def land_history(self, landing: Path) -> None:
        """Land what the first champions learn from: labels first, so that the run on the events finds them."""
        for feed, days in (
            ("labels", Days(start=_PAYMENTS.start + generator.LABEL_DELAY, end=_PAYMENTS.end)),
            ("events", _PAYMENTS),
        ):
            generator.land(self._payments, landing, "card_payments", feed, days)
        for feed in ("labels", "events"):
            flights.land_feed(self._flights, landing, "flights", feed, _FLIGHTS)

    def land_flights(self, landing: Path) -> None:
        """Land the week of flights after the history."""
        for feed in ("labels", "events"):
            flights.land_feed(
                self._flights, landing, "flights", feed, Days(start=_FLIGHTS.end, end=_FLIGHTS.end + _WEEK)
            )

    def new_events(self, model: str) -> pa.Table:
        """Events of the days after the history: a day of payments, or a week of flights."""
        if SOURCES[model] == "card_payments":
            return self._payments.events(_PAYMENTS.end)
        return flights.feed_rows(self._flights, "events", Days(start=_FLIGHTS.end, end=_FLIGHTS.end + _WEEK))


def champions(url: str) -> dict[str, int]:
    """Model → the version that the service at `url` serves; without the models that have none."""
    served = served_models(url)
    if served is None:
        return {}
    return {name: model.champion.version for name, model in served.models.items() if model.champion}


def all_serve(url: str) -> bool:
    """Whether the service at `url` serves the first version of all three models."""
    return champions(url) == dict.fromkeys(SOURCES, 1)


def check_predictions(url: str, data: Data) -> dict[str, int]:
    """Ask the service at `url` for predictions of each model. Returns model → the predictions that it has answered.

    Raises AssertionError when an answer, or the metrics of a model, are not as they must be.
    """
    answered = {}
    fields = {"card_fraud": "score", "flight_delay": "value", "flight_outcome": "probabilities"}
    for model, field in fields.items():
        serving, events = Serving(url, model), data.new_events(model)
        answer: dict[str, Any] = {**serving.predict(as_json(events.slice(0, 1).to_pylist()[0]))}
        assert (answer["model"], answer["model_version"], field in answer) == (model, 1, True), answer
        assert not answer["features_defaulted"], f"the features of {model} are not online"
        scored, _ = serving.replay(events)
        answered[model] = 1 + scored
        assert answered[model] == 1 + events.num_rows
    alone = httpx.post(f"{url}/predict", json={}, timeout=10)
    assert alone.status_code == 404, "a service of several models has no /predict"
    assert all(model in alone.text for model in SOURCES)
    return answered


def check_metrics(metrics: str) -> None:
    """Raises AssertionError when the metrics in `metrics` are not those of three models, each with its champion."""
    for model in SOURCES:
        (line,) = [
            each for each in metrics.splitlines() if each.startswith(f'perennial_champion_version{{model="{model}"')
        ]
        assert float(line.rpartition(" ")[2]) == 1
