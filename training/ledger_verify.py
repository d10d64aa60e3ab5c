"""`python -m training.ledger_verify [model …]`: run the step `ledger_verify` for each model that has a ledger."""

import json
import sys

from training.adapters.ledger import Ledger
from training.contract.errors import ExitCode, StepError
from training.runner import run_step
from training.settings import load_settings


def main(models: list[str]) -> int:
    """Returns 0 when every chain is whole, else the exit code of the first that is not. `models`: empty for all."""
    try:
        ledger = load_settings().ledger
        found = models or Ledger(ledger).models()
    except StepError as error:
        print(f"ledger_verify failed: {error}", file=sys.stderr)
        return error.exit_code
    if not found:
        print(f"There is no entry in {ledger} yet.", file=sys.stderr)
    codes = [run_step("ledger_verify", json.dumps({"model": model}), "-") for model in found]
    return next((code for code in codes if code), ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
