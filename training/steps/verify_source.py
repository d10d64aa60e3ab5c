"""Read the files of a source's tables, and name each that was changed after it was written."""

import logging
from datetime import UTC, datetime

from training.contract.errors import DataContractError
from training.contract.messages import VerifySourceInputs, VerifySourceResult
from training.contract.source_spec import load_source_spec
from training.nightly_share import NightlyShare
from training.settings import StateSettings
from training.verified import lake_faults

log = logging.getLogger("perennial")


def run(inputs: VerifySourceInputs, settings: StateSettings) -> VerifySourceResult:
    """Compare each file of the newest table versions, and of those that registered versions need, with its record; or
    the share of them that is due.

    Raises DataContractError that names every fault, TransientError when MLflow or the lake's store does not answer.
    """
    spec, tonight = load_source_spec(inputs.source, settings.feature_repo), None
    if inputs.share:
        night = (inputs.now or datetime.now(UTC)).astimezone(UTC).date()
        tonight = NightlyShare(spec.name, night, spec.retention.verify_nights, settings)
    found, read = lake_faults(spec, settings, tonight)
    if found:
        hint = "Restore these files from a backup. What was trained on them since they were changed, train again."
        raise DataContractError("\n".join(found), hint)
    log.info("The files of %s that were read are unchanged: %s", inputs.source, read)
    return VerifySourceResult(files=read)
