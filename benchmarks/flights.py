"""The models of the flights of 2013, through our own steps, judged on the last two months.

    make bench-flights        # ARGS='--holdout-days 184' judges on the second half of the year

Trains on the days before the holdout, but for the label delay between, and prints every estimator beside naive
predictions: the mean and the median of the route in the training window. Nothing is kept.
"""

import argparse
import logging
import os
import tempfile
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import yaml

from local.flights import DAYS, land
from testing.pipeline import Pipeline
from training.contract import messages as m
from training.contract.model_spec import MODELS_DIR
from training.settings import Settings

#: The label delay: holdouts end with the year.
AS_OF = DAYS.end + timedelta(days=2)
ESTIMATORS = {
    "flight_delay": ("linear_regression", "hist_gradient_boosting", "lightgbm"),
    "flight_outcome": ("logistic_regression", "hist_gradient_boosting", "lightgbm"),
}


def specs(home: Path, holdout_days: int) -> Path:
    """The specs of the flight models with another holdout."""
    folder = home / "models"
    folder.mkdir()
    for model in ESTIMATORS:
        spec = yaml.safe_load((MODELS_DIR / f"{model}.yaml").read_text())
        spec["training"]["holdout_days"] = holdout_days
        (folder / f"{model}.yaml").write_text(yaml.safe_dump(spec))
    return folder


def naive(train: pd.DataFrame, holdout: pd.DataFrame, statistic: str) -> tuple[float, float]:
    """RMSE and MAE of one number per route: `statistic` of its delays in the training window."""
    keys, delay = ["origin", "destination"], "arrival_delay"
    of_route = train.groupby(keys, observed=True)[delay].agg(statistic).rename("naive")
    predicted = holdout.join(of_route, on=keys)["naive"].fillna(train[delay].agg(statistic))
    errors = predicted - holdout[delay]
    return float(np.sqrt((errors**2).mean())), float(errors.abs().mean())


def report(model: str, result: m.EvaluateResult) -> str:
    names = list(next(iter(result.metrics.values())))
    lines = [f"{model}: {result.scored_rows} flights", "", f"| estimator | {' | '.join(names)} |"]
    lines += ["|---" * (1 + len(names)) + "|"]
    for estimator, metrics in result.metrics.items():
        lines.append(f"| {estimator} | {' | '.join(f'{metrics[name]:.3f}' for name in names)} |")
    lines += [f"{name} dropped out: {why}" for name, why in result.dropped_out.items()]
    return "\n".join([*lines, "", *result.verdict.reasons, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--holdout-days", type=int, default=61)
    args = parser.parse_args()
    logging.basicConfig(level="WARNING", format="%(message)s")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    # The aggregations of the first days look back on little.
    window_days = (DAYS.end - timedelta(days=args.holdout_days + 2) - date(2013, 1, 15)).days
    with tempfile.TemporaryDirectory(prefix="perennial-") as folder:
        home = Path(folder)
        settings = Settings(
            home=home,
            tracking_uri=f"sqlite:///{home}/mlflow.db",
            models_dir=specs(home, args.holdout_days),
            git_sha="benchmark",
        )
        pipeline = Pipeline(settings)
        pipeline.ingest("flights", land(Path(settings.landing), "flights", days_per_file=len(DAYS)))
        for model, estimators in ESTIMATORS.items():
            print(report(model, pipeline.judge(model, AS_OF, window_days, {name: {} for name in estimators})))
        (path,) = (Path(settings.work) / "flight_delay" / "datasets").glob("*/dataset.json")
        train, holdout = (pq.read_table(path.parent / f"{name}.parquet").to_pandas() for name in ("train", "holdout"))
        for statistic in ("mean", "median"):
            rmse, mae = naive(train, holdout, statistic)
            print(f"The {statistic} of the route: RMSE {rmse:.3f}, MAE {mae:.3f}")


if __name__ == "__main__":
    main()
