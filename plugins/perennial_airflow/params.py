"""The parameters of the form with which a person starts a run."""

from airflow.sdk import DAG, Param

from training.contract.model_spec import ModelSpec
from training.contract.source_spec import SourceSpec

Params = dict[str, Param]


def add_params(dag: DAG, params: Params) -> None:
    """Give a DAG that has all of its tasks its parameters.

    Tasks that are made later would each get a copy of them. Copying and checking those takes five times as long as the
    rest of making the DAG. When a task runs, Airflow looks at the parameters of its DAG anyway.
    """
    dag.params = params  # type: ignore[assignment]  # attrs converts it


def data_params(spec: SourceSpec) -> Params:
    day = "A day, or the first and the last day of a span: 2026-01-05_2026-01-18."
    return {
        "feed": Param("events", enum=spec.feed_names, title="Feed", description="The feed of the partition."),
        # No pattern: a file with an invalid name gets a run, too, in which the ingest step reports the mistake.
        "partition": Param("2026-01-05", type="string", minLength=1, title="Partition", description=day),
        "file": Param(
            None,
            type=["null", "string"],
            title="File",
            description="The name of the file in the feed's folder. Empty: <partition>.parquet.",
        ),
    }


def replay_quarantine_params(spec: SourceSpec) -> Params:
    corrections = "The name of a file with corrected rows of the partition, in the folder _corrections. Empty: none."
    return {
        "feed": Param("events", enum=spec.feed_names, title="Feed", description="The feed of the quarantined rows."),
        "partition": Param(
            None, type=["null", "string"], title="Partition", description="Empty: all with rows in quarantine."
        ),
        "corrections": Param(None, type=["null", "string"], title="Corrections", description=corrections),
        "reason": _reason(),
    }


def backfill_params() -> Params:
    return {
        "first_day": _day("First day"),
        "last_day": _day("Last day"),
        "monitor": Param(
            True,
            type="boolean",
            title="Monitor afterwards",
            description="At the end, start the monitors of the source's models and batch scoring of new data, once. "
            "The monitors may decide to train.",
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
            description=f"Empty: {spec.training.window_days}, from the model spec.",
        ),
        "as_of": _optional_day(
            "As of", "Use only what happened and was reported before this day (UTC). Empty: use everything."
        ),
        "change": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Changed since",
            description="The data changed on this day: learn from what came after, as the spec says under "
            "training.after_change. Empty: no change is known.",
        ),
        "reason": _reason(),
        "force": Param(
            False,
            type="boolean",
            title="Force",
            description="Train even when the policy refuses, and register even when the verdict is negative.",
        ),
    }


def score_params() -> Params:
    description = (
        "Score the events of this partition that the champion has not answered. Empty: those of new partitions."
    )
    return {"partition": Param(None, type=["null", "string"], title="Partition", description=description)}


def rollback_params() -> Params:
    return {"version": _version("Empty: the version that served before the current one."), "reason": _reason()}


def approval_params() -> Params:
    attempt = "How often a person has been asked, with this time."
    return {
        "version": Param(type="integer", minimum=1, title="Version", description="One that waits for approval."),
        "attempt": Param(1, type="integer", minimum=1, title="Attempt", description=attempt),
    }


def forget_params(spec: SourceSpec) -> Params:
    columns = " or ".join(sorted(set(spec.entities.values())))
    said = f"<column>=<value>, with the column {columns}. Airflow keeps what you write here."
    return {
        "entity": Param(type="string", minLength=3, title="Entity", description=said),
        "dry_run": Param(
            True, type="boolean", title="Dry run", description="Say what would be removed, and remove nothing."
        ),
    }


def reproduce_params() -> Params:
    return {"version": _version("Empty: the version in service.")}


def backtest_params() -> Params:
    policies = "The retraining policies to compare, such as weekly or combined. Empty: all of them."
    return {
        "policies": Param([], type="array", items={"type": "string"}, title="Policies", description=policies),
        "start": _optional_day("From", "The first champion is trained as of this day. Empty: as early as possible."),
        "end": _optional_day("To", "The day after the last one that counts. Empty: as late as labels have matured."),
        "look_every_days": Param(
            7,
            type="integer",
            minimum=1,
            title="Days between looks",
            description="Policies look, and train, on every such day. The run takes longer with more looks.",
        ),
    }


def _optional_day(title: str, description: str) -> Param:
    return Param(None, type=["null", "string"], format="date", title=title, description=description)


def _version(description: str) -> Param:
    return Param(None, type=["null", "integer"], minimum=1, title="Version", description=description)


def _day(title: str) -> Param:
    # No default: no day suits every source, and a run of a wrong range takes in the wrong files.
    return Param(type="string", format="date", title=title, description="Of the partitions to ingest.")


def _reason() -> Param:
    return Param("By hand", type="string", minLength=1, title="Reason", description="Recorded in the ledger.")
