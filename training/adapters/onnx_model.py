"""Load and score a served artifact with ONNX Runtime. Serving, evaluation and drift all get their scores here."""

import hashlib
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
from pydantic import ValidationError

from training import atomic, storage
from training.contract.artifact import (
    MAXIMUM_MIB,
    METADATA_FILE,
    ONNX_FILE,
    ONNX_INPUT,
    ONNX_OUTPUT,
    ArtifactMetadata,
    too_large,
)
from training.contract.errors import DataContractError, InputError
from training.contract.registries import TASKS
from training.domain.onnx_sizes import oversized_constants
from training.domain.parity import largest_tolerance
from training.domain.task_kind import ServedTask, served_task

#: A folder that does not exist, so that a model cannot read files next to it.
_NO_FILES = "/nonexistent/models-must-not-read-files"


class OnnxScorer:
    """A model.onnx with the graph of contract/artifact.py, in memory. One that names files with its data is refused.

    The default is one thread, because it scores one row as fast as many threads do. So the processes of a service do
    not compete for cores.
    """

    def __init__(self, content: bytes, threads: int = 1) -> None:
        options = ort.SessionOptions()
        # The content is the whole model. Else it could name files of this machine and give their bytes away as scores.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FILES)
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def score(self, features: np.ndarray) -> np.ndarray:
        """What the graph gives for float32 features [n, d]: float32 [n] or, for classes, [n, k]."""
        return np.asarray(self._session.run([ONNX_OUTPUT], {ONNX_INPUT: features})[0])


class OnnxModel:
    """A verified artifact: its `metadata`, and `score`."""

    def __init__(self, metadata: ArtifactMetadata, scorer: OnnxScorer) -> None:
        self.metadata = metadata
        self._scorer = scorer
        optional = np.array([column.may_be_missing for column in metadata.columns], bool)
        #: Which columns may be missing; None when none may.
        self._optional = optional if optional.any() else None

    @cached_property
    def task(self) -> ServedTask:
        """What the scores mean. Raises DataContractError when the metadata's task cannot be read."""
        return served_task(self.metadata.task)

    @classmethod
    def load(
        cls,
        folder: Path | str,
        threads: int = 1,
        maximum_mib: int = MAXIMUM_MIB,
        signed: Mapping[str, str] | None = None,
    ) -> Self:
        """Load model.onnx and metadata.json from `folder`, a path or a URI.

        Neither the files nor the constants of the graph may take more than `maximum_mib`. `signed`: file → the SHA-256
        that its signature names; what is loaded must have it.

        Raises InputError when a file is missing, DataContractError when the files are invalid, too large or do not
        belong together.
        """
        content, described = (_read(folder, name, maximum_mib) for name in (ONNX_FILE, METADATA_FILE))
        try:
            metadata = ArtifactMetadata.model_validate_json(described)
        except ValidationError as error:
            problem = f"{METADATA_FILE} in {folder} is not valid: {error}"
            raise DataContractError(problem, hint="Another version of this code wrote it. Train again.") from error
        found = digest(content)
        if signed is not None and dict(signed) != {ONNX_FILE: found, METADATA_FILE: digest(described)}:
            problem = f"The files in {folder} were changed after their signature was verified"
            raise DataContractError(problem, hint="Delete the folder and fetch the artifact again.")
        if found != metadata.digest:
            problem = f"{ONNX_FILE} in {folder} has digest {found}, but {METADATA_FILE} has {metadata.digest}"
            raise DataContractError(problem, hint="Delete the folder and fetch the artifact again.")
        _check_constants(content, folder, maximum_mib)
        try:
            return cls(metadata, OnnxScorer(content, threads))
        except Exception as error:  # ONNX Runtime's exceptions have no common class.
            problem = f"{ONNX_FILE} in {folder} cannot be loaded: {error}"
            raise DataContractError(problem, hint="Do not serve the model. Train again.") from error

    def score(self, features: np.ndarray) -> np.ndarray:
        """The scores, float32 [n] or [n, k], for features [n, d] in the order of `feature_names`.

        Raises InputError for another shape, for infinite values, and for NaN in a column that is never missing.
        """
        values = np.ascontiguousarray(features, dtype=np.float32)
        names = self.metadata.feature_names
        if values.ndim != 2 or values.shape[1] != len(names):
            problem = f"The features have the shape {values.shape}, but the model takes [n, {len(names)}]"
            raise InputError(problem, hint=f"Its features, in order: {', '.join(names)}.")
        # The sum is finite only if all values are. It may overflow although they are: then each is looked at.
        if not math.isfinite(np.add.reduce(values, None)) and (bad := self._not_finite(values)).any():
            named = ", ".join(np.asarray(names)[bad.any(axis=0)])
            raise InputError(
                f"Features are not finite: {named}", hint="Replace them with the defaults of the features."
            )
        return self._scorer.score(values)

    def score_finite(self, features: np.ndarray) -> np.ndarray:
        """As `score`, but a row with a feature that `score` refuses has the score NaN."""
        values = np.ascontiguousarray(features, dtype=np.float32)
        bad = np.asarray(self._not_finite(values).any(axis=1))
        if not bad.any():
            return self.score(values)
        scores = self.score(np.where(bad[:, np.newaxis], np.float32(0), values))
        scores[bad] = np.nan
        return scores

    def _not_finite(self, values: np.ndarray) -> np.ndarray:
        """Which features [n, d] a model cannot take: bool."""
        bad = ~np.isfinite(values)
        if self._optional is not None:
            bad &= ~(np.isnan(values) & self._optional)
        return np.asarray(bad)

    def check_golden(self) -> None:
        """Score the golden rows. Raises DataContractError when the scores differ from those in the metadata."""
        golden = self.metadata.golden
        found = self.score(np.asarray(golden.features, np.float32))
        expected = np.asarray(golden.scores)
        if found.shape != expected.shape:
            problem = (
                f"Scores of the golden rows have the shape {found.shape}, those in {METADATA_FILE} {expected.shape}"
            )
            raise DataContractError(problem, hint="The files do not belong together. Train again.")
        difference = np.abs(found - expected).max(initial=0.0)
        # The artifact says what to allow, and must not allow itself more than training would.
        allowed = min(golden.tolerance, largest_tolerance(expected, TASKS.find(self.metadata.task["kind"]).target))
        if not difference <= allowed:
            problem = f"Scores of the golden rows differ by {difference:.2g}, more than {allowed:.2g}"
            hint = "ONNX Runtime on this machine computes other scores than in training. Do not serve the model here."
            raise DataContractError(problem, hint=hint)


def _read(folder: Path | str, name: str, maximum_mib: int) -> bytes:
    """A file of the artifact in `folder`. Raises as `OnnxModel.load`."""
    uri = storage.join(str(folder), name)
    size = storage.size(uri)
    if size is not None and size > maximum_mib * 2**20:
        raise too_large(uri, size, maximum_mib)
    content = storage.read(uri)
    if content is None:
        problem = f"No model artifact in {folder}: {name} is missing"
        raise InputError(problem, hint="Train a model, or download the artifact.")
    return content


def _check_constants(content: bytes, folder: Path | str, maximum_mib: int) -> None:
    """Raises DataContractError when the constants of a graph are too large, before ONNX Runtime allocates them."""
    try:
        problem = oversized_constants(content, maximum_mib * 2**20)
    except ValueError as error:
        problem = f"{ONNX_FILE} in {folder} cannot be read: {error}"
        raise DataContractError(problem, hint="Do not serve the model. Train again.") from error
    if problem:
        hint = "Do not serve the model. If it is meant so, set CT_ARTIFACT_MAXIMUM_MIB higher."
        raise DataContractError(f"{ONNX_FILE} in {folder} is too large: {problem}; allowed are {maximum_mib} MiB", hint)


def digest(content: bytes) -> str:
    """The SHA-256 of a model.onnx, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_artifact(folder: Path, content: bytes, metadata: ArtifactMetadata) -> Path:
    """Write the two files of an artifact into `folder`, both or none. Replaces a folder that exists."""
    with atomic.replacing(folder) as draft:
        draft.mkdir()
        (draft / ONNX_FILE).write_bytes(content)
        (draft / METADATA_FILE).write_text(metadata.model_dump_json(indent=2))
    return folder
