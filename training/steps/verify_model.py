"""Name each ledger entry and version of a model that was changed since it was written."""

import logging

from training.adapters.ledger import Ledger
from training.contract.errors import DataContractError
from training.contract.messages import VerifyModelInputs, VerifyModelResult
from training.settings import StateSettings
from training.verified import ledger_faults, version_faults

log = logging.getLogger("perennial")


def run(inputs: VerifyModelInputs, settings: StateSettings) -> VerifyModelResult:
    """Check the ledger as `ledger_verify` does, and fetch every registered version.

    Logs the newest entry of the ledger: a log that is kept elsewhere shows later whether the ledger was rewritten.
    Raises DataContractError that names every fault, TransientError when MLflow does not answer.
    """
    found, anchors = ledger_faults(inputs.model, settings)
    of_versions, versions = version_faults(inputs.model, settings)
    if found or of_versions:
        hint = "Restore the files from a backup. Until then do not roll out or reproduce what is named."
        raise DataContractError("\n".join([*found, *of_versions]), hint)
    ledger = Ledger(settings.ledger)
    entries, head = len(ledger.entries(inputs.model)), ledger.head(inputs.model)
    log.info(
        "%s is unchanged: %d ledger entries, the newest is %s; %d versions",
        *(inputs.model, entries, head or "none", versions),
    )
    return VerifyModelResult(entries=entries, anchors=anchors, head=head, versions=versions)
