"""`python -m training.ledger_verify [model …]`: check the ledger of each model that has one, also of removed models."""

import json
import sys

from training.adapters.ledger import Ledger
from training.contract.errors import ExitCode, StepError
from training.contract.model_spec import model_names
from training.runner import run_step
from training.settings import StateSettings, load_settings
from training.verified import ledger_faults


def main(models: list[str]) -> int:
    """Returns 0 when every chain is whole, else the exit code of the first that is not. `models`: empty for all."""
    try:
        settings = load_settings()
        known = Ledger(settings.ledger).models()
        found, removed = models or known, set(known) - set(model_names(settings.models_dir))
    except StepError as error:
        print(f"ledger_verify failed: {error}", file=sys.stderr)
        return error.exit_code
    if not found:
        print(f"There is no entry in {settings.ledger} yet.", file=sys.stderr)
    codes = [
        without_spec(model, settings)
        if model in removed
        else run_step("ledger_verify", json.dumps({"model": model}), "-")
        for model in found
    ]
    return next((code for code in codes if code), ExitCode.OK)


def without_spec(model: str, settings: StateSettings) -> int:
    """What the step `ledger_verify` does, which needs a spec. Returns its exit code."""
    faults, anchors = ledger_faults(model, settings)
    for fault in faults:
        print(f"✗ {fault}", file=sys.stderr)
    if not faults:
        print(f"The ledger of {model}, which has no spec, is intact; {anchors} versions agree")
    return ExitCode.DATA_CONTRACT if faults else ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
