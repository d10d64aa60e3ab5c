"""Replays payments against the prediction service, so that the prediction log and late performance are real."""

import time
from datetime import date
from typing import Any

import httpx
import pyarrow as pa
from pydantic import SecretStr

from training.contract.errors import StepError, TransientError

#: Payments per request.
BATCH = 500


class Serving:
    """The prediction service of a stack. Asks again for `patience` seconds while it does not answer.

    `api_key`: for services that want one.
    """

    def __init__(self, url: str, patience: float = 120, api_key: SecretStr | None = None) -> None:
        headers = {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {}
        self._client = httpx.Client(base_url=url, timeout=30, headers=headers)
        self._patience = patience

    def champion(self) -> int | None:
        """The version in service; None while there is none, or no answer."""
        try:
            slots = self._client.get("/models").raise_for_status().json()["slots"]
        except (httpx.HTTPError, ValueError, KeyError):
            return None
        slot = slots.get("champion")
        return int(slot["version"]) if slot else None

    def in_stages(self) -> bool:
        """Is a version on its way into service, in a stage that wants traffic?"""
        try:
            mode = self._client.get("/signals").raise_for_status().json()["traffic"]["mode"]
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        return bool(mode != "full")

    def predict(self, payment: dict[str, Any]) -> dict[str, Any]:
        """One prediction. Raises TransientError when the service stays away, StepError when it refuses."""
        return self._post("/predict", payment)

    def replay(self, events: pa.Table) -> tuple[int, int]:
        """Send every payment. Returns how many were scored and how many of them flagged."""
        scored = flagged = 0
        for batch in events.to_batches(max_chunksize=BATCH):
            predictions = self._post("/predict_batch", [as_json(row) for row in batch.to_pylist()])["predictions"]
            scored += len(predictions)
            flagged += sum(prediction["decision"] == "flag" for prediction in predictions)
        return scored, flagged

    def _post(self, path: str, body: Any) -> Any:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                answer = self._client.post(path, json=body)
            except httpx.HTTPError as error:
                why = str(error)
            else:
                if answer.is_success:
                    return answer.json()
                why = f"{answer.status_code} {answer.text[:300]}"
                if answer.is_client_error:
                    raise StepError(f"The prediction service refused a request to {path}: {why}")
            if time.monotonic() > deadline:
                hint = "`make status` says what runs; the log of serving says more."
                raise TransientError(f"The prediction service did not answer {path}: {why}", hint)
            time.sleep(0.5)


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    """Times as ISO 8601."""
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in row.items()}
