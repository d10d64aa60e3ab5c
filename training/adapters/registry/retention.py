"""What registered versions need, and deleting the artifacts of runs that belong to none."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from training.adapters.registry.connection import connect, contract_errors
from training.adapters.registry.pages import PAGE, pages, registered_names, versions_of
from training.adapters.registry.runs import FINGERPRINT, RESULT
from training.adapters.registry.versions import TABLE
from training.contract.errors import DataContractError

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger("perennial")

#: MLflow's ViewType.DELETED_ONLY: importing MLflow takes seconds.
_DELETED_ONLY = 2
#: Tag of a run whose artifacts were deleted: when.
DELETED = "artifacts_deleted"
#: Tag of a version that cannot be made again, because rows that it learned from were removed on request.
FORGOTTEN = "forgotten"


def needed_table_versions(tracking_uri: str, learns_from_it: Callable[[str], bool]) -> dict[str, set[int]]:
    """Table → its versions that registered versions were made of, of the models for which `learns_from_it` holds.

    Raises DataContractError for a version that does not say it, so that nothing that it needs is deleted;
    TransientError when MLflow does not answer.
    """
    client, needed = connect(tracking_uri), dict[str, set[int]]()
    with contract_errors(tracking_uri):
        for model in pages(client.search_registered_models, max_results=PAGE):
            if not learns_from_it(model.name):
                continue
            for version in versions_of(client, model.name):
                if FORGOTTEN in version.tags:
                    continue
                tables = _tables(version.tags) or _tables(client.get_run(version.run_id).data.tags)
                if not tables:
                    problem = f"Version {version.version} of {model.name} does not say of which table versions it is"
                    hint = f"Set its tags {TABLE}<table> in MLflow, or delete the version. Nothing was deleted."
                    raise DataContractError(problem, hint)
                for table, number in tables.items():
                    needed.setdefault(table, set()).add(number)
    return needed


def registered_models(tracking_uri: str) -> list[str]:
    """The names of all registered models. Raises TransientError when MLflow does not answer."""
    client = connect(tracking_uri)
    with contract_errors(tracking_uri):
        return registered_names(client)


def table_versions(tracking_uri: str, model: str) -> dict[int, dict[str, int]]:
    """Registered version → table → the version of it that it was made of; without the versions that are forgotten.

    Raises TransientError when MLflow does not answer.
    """
    client = connect(tracking_uri)
    with contract_errors(tracking_uri):
        return {
            int(version.version): _tables(version.tags) or _tables(client.get_run(version.run_id).data.tags)
            for version in versions_of(client, model)
            if FORGOTTEN not in version.tags
        }


def delete_artifacts(
    tracking_uri: str, model: str, before: datetime, dry_run: bool, unended: bool = False
) -> list[str]:
    """Delete the artifacts of `model`'s runs that ended before `before` and belong to no registered version.

    `unended`: also of runs without an end, which began before. Their processes were killed, and a retry continues them.
    Returns the ids of the runs. Their numbers stay. A run says that its artifacts are gone, and is not found by its
    fingerprint any more: the same training fits anew. Raises TransientError when MLflow does not answer.
    """
    client = connect(tracking_uri)
    with contract_errors(tracking_uri):
        experiment = client.get_experiment_by_name(model)
        if experiment is None:
            return []
        registered = {version.run_id for version in versions_of(client, model)}
        limit = int(before.timestamp() * 1000)
        begun = f"attributes.start_time < {limit}"
        runs = pages(client.search_runs, experiment_ids=[experiment.experiment_id], filter_string=begun)
        ended = (run for run in runs if (unended if run.info.end_time is None else run.info.end_time < limit))
        old = [run for run in ended if run.info.run_id not in registered and DELETED not in run.data.tags]
        for run in old:
            if not dry_run:
                _delete(client, tracking_uri, run, before)
    return [run.info.run_id for run in old]


def deleted_runs(tracking_uri: str, model: str) -> int:
    """How many runs of `model` were deleted in MLflow, which keeps their artifacts until `mlflow gc`.

    Raises TransientError when MLflow does not answer.
    """
    client = connect(tracking_uri)
    with contract_errors(tracking_uri):
        experiment = client.get_experiment_by_name(model)
        if experiment is None:
            return 0
        found = pages(client.search_runs, experiment_ids=[experiment.experiment_id], run_view_type=_DELETED_ONLY)
        return sum(1 for _ in found)


def _delete(client: "MlflowClient", tracking_uri: str, run: Any, before: datetime) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    run_id = run.info.run_id
    # First, so that no training takes up the run while its artifacts go.
    for tag in (RESULT, FINGERPRINT):
        if tag in run.data.tags:
            client.delete_tag(run_id, tag)
    for output in run.outputs.model_outputs if run.outputs else ():
        location = client.get_logged_model(output.model_id).artifact_location
        get_artifact_repository(location, tracking_uri).delete_artifacts()
        client.delete_logged_model(output.model_id)
    get_artifact_repository(run.info.artifact_uri, tracking_uri).delete_artifacts()
    client.set_tag(run_id, DELETED, before.isoformat())
    log.info("Deleted the artifacts of run %s (%s)", run_id, run.info.run_name)


def _tables(tags: dict[str, str]) -> dict[str, int]:
    return {tag.removeprefix(TABLE): int(value) for tag, value in tags.items() if tag.startswith(TABLE)}
