"""Sends events to the prediction service, so that the prediction log and the measured performance are real."""

import time
from collections import Counter
from datetime import date
from typing import Any

import httpx
import pyarrow as pa
from pydantic import SecretStr

from training.contract.errors import StepError, TransientError
from training.contract.predictions import Prediction, read_prediction, read_predictions
from training.contract.replicas import ReplicaModels, ServedModels
from training.contract.signals import Signals

#: Events per request.
BATCH = 500


def served_models(url: str, api_key: SecretStr | None = None) -> ServedModels | None:
    """All models of the prediction service; None when it does not answer."""
    try:
        answer = httpx.get(f"{url}/models", timeout=5, headers=_authorization(api_key)).raise_for_status()
        return ServedModels.model_validate_json(answer.content)
    except (httpx.HTTPError, ValueError):
        return None


def _authorization(api_key: SecretStr | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {}


class Serving:
    """`model` in the prediction service of a stack. It is asked again for `patience` seconds while it does not answer.

    `api_key`: for services that require one.
    """

    def __init__(self, url: str, model: str, patience: float = 120, api_key: SecretStr | None = None) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, headers=_authorization(api_key))
        self._model, self._patience = f"/models/{model}", patience

    def champion(self) -> int | None:
        """The version in service; None while there is none, or no answer."""
        try:
            answer = self._client.get(self._model).raise_for_status()
            champion = ReplicaModels.model_validate_json(answer.content).champion
        except (httpx.HTTPError, ValueError):
            return None
        return champion.version if champion else None

    def in_stages(self) -> bool:
        """Whether a rollout is in a stage that needs traffic."""
        try:
            answer = self._client.get(f"{self._model}/signals").raise_for_status()
            return Signals.model_validate_json(answer.content).traffic.mode != "full"
        except (httpx.HTTPError, ValueError):
            return False

    def predict(self, event: dict[str, Any]) -> Prediction:
        """One prediction. Raises TransientError when the service does not answer in time, StepError when it refuses."""
        return read_prediction(self._post(f"{self._model}/predict", event))

    def replay(self, events: pa.Table) -> tuple[int, Counter[str]]:
        """Send every event. Returns how many were scored, and decision → its predictions, where the model decides."""
        scored, decisions = 0, Counter[str]()
        for batch in events.to_batches(max_chunksize=BATCH):
            rows = [as_json(row) for row in batch.to_pylist()]
            predictions = read_predictions(self._post(f"{self._model}/predict_batch", rows))
            scored += len(predictions)
            decisions.update(prediction["decision"] for prediction in predictions if "decision" in prediction)
        return scored, decisions

    def _post(self, path: str, body: Any) -> bytes:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                answer = self._client.post(path, json=body)
            except httpx.HTTPError as error:
                why = str(error)
            else:
                if answer.is_success:
                    return answer.content
                why = f"{answer.status_code} {answer.text[:300]}"
                if answer.is_client_error:
                    raise StepError(f"The prediction service refused a request to {path}: {why}")
            if time.monotonic() > deadline:
                hint = "`make status` says what runs. The log of the service says why it does not answer."
                raise TransientError(f"The prediction service did not answer {path}: {why}", hint)
            time.sleep(0.5)


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    """`row` for a request body: dates and times become ISO 8601 text."""
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in row.items()}
