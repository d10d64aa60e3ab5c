"""Training runs in MLflow: one experiment per model, one run per fingerprint, also after retries.

The status FINISHED is set last, and only runs with it are used. A retry continues an unfinished run. Everything that is
logged has a fixed name and time, so logging it again changes nothing.
"""

import json
import logging
import platform
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from training.adapters.registry.connection import ABSENT, connect, contract_errors, sent_once
from training.adapters.registry.downloads import fetch_served
from training.adapters.registry.versions import table_tags
from training.contract.artifact import ONNX_FILE, ONNX_INPUT, ONNX_OUTPUT, ArtifactCheck
from training.contract.errors import TransientError
from training.contract.messages import DatasetResult

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

log = logging.getLogger("perennial")

FINGERPRINT, RESULT = "fingerprint", "result"
#: MLflow's own tag of a child run, and ours with its name: a child that exists is found by it.
_PARENT, _CHILD = "mlflow.parentRunId", "child"
#: Rows of the input example.
_EXAMPLE_ROWS = 3


@dataclass(frozen=True)
class Run:
    """`started`: ms since 1970. `result`: the result of the step that made the run; None while it is unfinished."""

    run_id: str
    started: int
    result: dict[str, Any] | None


class Runs:
    """The runs of `model`'s experiment at `tracking_uri`. Raises TransientError when MLflow does not answer.

    `local_artifacts`: the folder for artifacts when MLflow is used without a server. A server decides this itself.
    """

    def __init__(self, tracking_uri: str, model: str, local_artifacts: str) -> None:
        self._uri, self._model, self._local = tracking_uri, model, local_artifacts

    @cached_property
    def _client(self) -> "MlflowClient":
        return connect(self._uri)

    @cached_property
    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        location = None if self._uri.startswith("http") else f"{self._local}/{self._model}"
        found = self._client.get_experiment_by_name(self._model)
        if found is None:
            # The steps of other estimators start at the same time, and only one of them can create it.
            with suppress(MlflowException):
                return self._client.create_experiment(self._model, artifact_location=location)
            found = self._client.get_experiment_by_name(self._model)
        if found is None:
            raise TransientError(f"MLflow at {self._uri} could not create the experiment {self._model}", hint="Retry.")
        return found.experiment_id

    def begin(self, name: str, fingerprint: str, tags: Mapping[str, str]) -> Run:
        """The run with this fingerprint: finished, resumed, or new."""
        client = self._client
        with contract_errors(self._uri):
            query = f"tags.{FINGERPRINT} = '{fingerprint}'"
            found = client.search_runs([self._experiment], query, order_by=["attributes.start_time ASC"])
            finished = [run for run in found if run.info.status == "FINISHED" and RESULT in run.data.tags]
            if finished:
                run = finished[0]
                return Run(run.info.run_id, run.info.start_time, json.loads(run.data.tags[RESULT]))
            all_tags = {**tags, FINGERPRINT: fingerprint}
            run = found[0] if found else self._create(name, all_tags)
            client.update_run(run.info.run_id, status="RUNNING")
            return Run(run.info.run_id, run.info.start_time, None)

    def _create(self, name: str, tags: Mapping[str, str]) -> "MlflowRun":
        with sent_once():
            return self._client.create_run(self._experiment, run_name=name, tags=dict(tags))

    def tags(self, run_id: str) -> dict[str, str]:
        """The tags of a run; empty when there is no run with this id."""
        found = self._find(run_id)
        return {} if found is None else dict(found.data.tags)

    def metrics(self, run_id: str) -> dict[str, float]:
        """The metrics of a run; empty when there is no run with this id."""
        found = self._find(run_id)
        return {} if found is None else dict(found.data.metrics)

    def _find(self, run_id: str) -> "MlflowRun | None":
        self._client  # noqa: B018 – connect first: the exception type is MLflow's
        from mlflow.exceptions import MlflowException

        with contract_errors(self._uri):
            try:
                return self._client.get_run(run_id)
            except MlflowException as error:
                if error.error_code in ABSENT:
                    return None
                raise

    def log(self, run: Run, params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Log parameters and metrics. The metrics get the time when the run started."""
        with contract_errors(self._uri):
            from mlflow.entities import Metric, Param

            self._client.log_batch(
                run.run_id,
                metrics=[Metric(key, value, run.started, 0) for key, value in metrics.items()],
                params=[Param(key, str(value)) for key, value in params.items()],
            )

    def log_child(
        self, run: Run, name: str, params: Mapping[str, Any], metrics: Mapping[str, Sequence[float]], state: str
    ) -> None:
        """Log a finished part of `run` as its child run `name`, unless it is there. `state`: the tag of that name.

        A metric has one value for each step.
        """
        tags = {_PARENT: run.run_id, _CHILD: name, "state": state}
        with contract_errors(self._uri):
            from mlflow.entities import Metric, Param

            query = f"tags.`{_PARENT}` = '{run.run_id}' AND tags.{_CHILD} = '{name}'"
            found = self._client.search_runs([self._experiment], query)
            if any(child.info.status != "RUNNING" for child in found):
                return
            child = found[0] if found else self._create(name, tags)
            steps = [(key, value, step) for key, values in metrics.items() for step, value in enumerate(values)]
            self._client.log_batch(
                child.info.run_id,
                metrics=[Metric(key, value, run.started, step) for key, value, step in steps],
                params=[Param(key, str(value)) for key, value in params.items()],
            )
            self._client.set_terminated(child.info.run_id, "FAILED" if state == "failed" else "FINISHED")

    def nest(self, run: Run, child: str) -> None:
        """Show the run with the id `child` below `run`."""
        self.tag(child, {_PARENT: run.run_id})

    def log_dataset(self, run: Run, dataset: DatasetResult) -> None:
        """Log both splits as dataset inputs. Their tags are the table versions that they were made from."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        versions = [InputTag(*tag) for tag in table_tags(dataset.table_versions).items()]
        inputs = []
        for context, split in (("training", dataset.train), ("holdout", dataset.holdout)):
            described = Dataset(
                name=f"{self._model} {context}",
                digest=dataset.dataset_id[:36],
                source_type="local",
                source=json.dumps({"uri": split.uri}),
                profile=json.dumps(
                    {"days": str(split.days), "num_rows": split.rows, "counts": split.counts}, ensure_ascii=False
                ),
            )
            inputs.append(DatasetInput(described, [InputTag("mlflow.data.context", context), *versions]))
        with contract_errors(self._uri):
            self._client.log_inputs(run.run_id, inputs)

    def log_files(self, run_id: str, folder: Path, name: str | None = None) -> None:
        """Log the files in `folder` as run artifacts, under `name`."""
        with contract_errors(self._uri):
            self._client.log_artifacts(run_id, str(folder), name)

    def log_model(self, run: Run, artifact: Path, example: np.ndarray, requirements: Iterable[str]) -> None:
        """Log the model of the artifact folder as a logged model with MLflow's ONNX flavour."""
        from mlflow.entities import LoggedModelOutput

        with contract_errors(self._uri):
            outputs = self._client.get_run(run.run_id).outputs
            if outputs and outputs.model_outputs:
                return
            # The run refers to its model only at the end. A model without such a reference is from a killed step.
            query = f"source_run_id = '{run.run_id}'"
            for unused in self._client.search_logged_models([self._experiment], filter_string=query):
                self._client.delete_logged_model(unused.model_id)
            with sent_once():
                logged = self._client.create_logged_model(self._experiment, "model", source_run_id=run.run_id)
            with TemporaryDirectory() as folder:
                _save_onnx_flavour(artifact / ONNX_FILE, Path(folder, "model"), logged, example, list(requirements))
                self._client.log_model_artifacts(logged.model_id, f"{folder}/model")
            self._client.finalize_logged_model(logged.model_id, "READY")
            self._client.log_outputs(run.run_id, [LoggedModelOutput(logged.model_id, 0)])

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        with contract_errors(self._uri):
            for key, value in tags.items():
                self._client.set_tag(run_id, key, value)

    def finish(self, run: Run, result: Mapping[str, Any]) -> None:
        """Mark the run as finished. A later `begin` returns `result` with it."""
        with contract_errors(self._uri):
            self._client.set_tag(run.run_id, RESULT, json.dumps(result))
            self._client.set_terminated(run.run_id, "FINISHED")

    def fail(self, run: Run) -> None:
        """Mark the run as failed. Call it while handling the error; an error of this call is only logged."""
        try:
            with contract_errors(self._uri):
                self._client.set_terminated(run.run_id, "FAILED")
        except Exception as error:
            log.warning("Could not mark run %s as failed: %s", run.run_id, error)

    def fetch(
        self, run_id: str, digest: str, folder: Path, maximum_mib: int, check: ArtifactCheck | None = None
    ) -> Path:
        """Download the run's artifact into `folder` unless it is there. See Registry.download."""
        with contract_errors(self._uri):
            return fetch_served(self._client, run_id, digest, folder, maximum_mib, check)


def _save_onnx_flavour(content: Path, folder: Path, logged: Any, example: np.ndarray, requirements: list[str]) -> None:
    import onnx
    from mlflow.models import Model, ModelSignature
    from mlflow.onnx import save_model
    from mlflow.types import Schema, TensorSpec

    floats = np.dtype(np.float32)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(floats, (-1, example.shape[1]), ONNX_INPUT)]),
        outputs=Schema([TensorSpec(floats, (-1,), ONNX_OUTPUT)]),
    )
    described = Model(
        artifact_path=logged.artifact_location,
        run_id=logged.source_run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
    save_model(
        onnx.load(content),
        folder,
        mlflow_model=described,
        signature=signature,
        input_example={ONNX_INPUT: example[:_EXAMPLE_ROWS]},
        # Given here, because MLflow would run a subprocess for many seconds to find them.
        conda_env={
            "name": "model",
            "channels": ["conda-forge"],
            "dependencies": [f"python={platform.python_version()}", "pip", {"pip": requirements}],
        },
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
