"""One step or one floor in this process; prints what it cost as JSON. See __main__.py."""

import contextlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.data.floors import FLOORS, Cost
from benchmarks.feature_sql import peak

SOURCE, MODEL = "card_payments", "card_fraud"
#: Step → what it imports while it runs.
IMPORTS: Mapping[str, tuple[str, ...]] = {
    "ingest": ("great_expectations", "training.adapters.expectations"),
    "features": ("duckdb", "training.adapters.features.definitions", "training.adapters.feature_query"),
    "materialize": (
        "training.adapters.features",
        "feast.infra.online_stores.sqlite",
        "training.adapters.features.online_stores.sqlite",
        "training.adapters.features.online_stores.redis",
    ),
    "dataset": ("duckdb", "training.adapters.features", "mlflow"),
}


def main(kind: str, home: str, name: str, *arguments: str) -> None:
    cost = Cost()
    rows = step(cost, Path(home), name, *arguments) if kind == "step" else FLOORS[name](cost, Path(home), *arguments)
    print(json.dumps({"cpu": cost.seconds, "imports": cost.imports, "rows": rows, "peak": peak()}))


def step(cost: Cost, home: Path, name: str, inputs: str, online: str) -> int:
    """Run a step on the newest versions of the tables. Returns the number of its rows."""
    with cost.importing():
        import importlib

        from training.adapters.lake import Lake
        from training.compat.feast import quick_import
        from training.contract.source_spec import load_source_spec
        from training.contract.steps import STEPS
        from training.settings import Settings

        run = STEPS[name].load()
        with quick_import() if name != "ingest" else contextlib.nullcontext():
            for module in IMPORTS[name]:
                importlib.import_module(module)
    fields = {"online_store": online} if online else {}
    settings = Settings(home=home, tracking_uri=f"sqlite:///{home}/mlflow.db", git_sha="benchmark", **fields)
    given: dict[str, Any] = {"source": SOURCE} if name != "dataset" else {"model": MODEL}
    if name in ("features", "materialize"):
        spec = load_source_spec(SOURCE)
        tables = (*spec.feeds, *(spec.entities if name == "materialize" else ()))
        given["table_versions"] = Lake(settings.lake, SOURCE).versions(*tables)
    if name == "materialize":
        # Every row is written, as after a day on which all of them changed.
        Path(settings.feature_registry).with_name(f"{SOURCE}.online.json").unlink(missing_ok=True)
    wanted = STEPS[name].inputs.model_validate({**given, **json.loads(inputs)})
    with cost.working():
        result = run(wanted, settings)
    return _rows(result)


def _rows(result: Any) -> int:
    if hasattr(result, "rows_read"):
        return int(result.rows_read)
    return sum(result.rows.values()) if hasattr(result, "rows") else int(result.train.rows + result.holdout.rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
