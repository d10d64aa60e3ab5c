"""What a person is asked when starting a run by hand."""

from airflow.sdk import Param

from perennial_airflow.deliveries import FEEDS
from training.contract.model_spec import ModelSpec

Params = dict[str, Param]


def data_params() -> Params:
    day = "A day, or two with `_` between them, both ends in: 2026-01-05_2026-01-18."
    return {
        "feed": Param("events", enum=[*FEEDS], title="Feed", description="What the partition holds"),
        # No pattern: a file with an odd name gets its run too, and the ingest step says what is wrong with it.
        "partition": Param("2026-01-05", type="string", minLength=1, title="Partition", description=day),
        "file": Param(
            None,
            type=["null", "string"],
            title="File",
            description="Its name in the feed's folder. Empty: <partition>.parquet.",
        ),
    }


def training_params(spec: ModelSpec) -> Params:
    estimators = sorted(spec.training.estimators)
    return {
        "estimators": Param(
            estimators,
            type="array",
            items={"type": "string", "enum": estimators},
            examples=estimators,
            minItems=1,
            title="Estimators",
            description="All of these are trained; the best on the holdout is the challenger.",
        ),
        "window_days": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Training window, in days",
            description=f"Empty: {spec.training.window_days}, as the model spec says.",
        ),
        "as_of": Param(
            None,
            type=["null", "string"],
            format="date",
            title="As of",
            description="Nothing that happened or was reported after this midnight (UTC) is used. Empty: all there is.",
        ),
        "reason": _reason(),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Train whatever the policy says, and register whatever the verdict is.",
        ),
    }


def rollback_params() -> Params:
    version = "Empty: the version that served before the present one."
    return {
        "version": Param(None, type=["null", "integer"], minimum=1, title="Version", description=version),
        "reason": _reason(),
    }


def _reason() -> Param:
    return Param("By hand", type="string", minLength=1, title="Reason", description="Kept in the ledger.")
