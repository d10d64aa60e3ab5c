"""`python -m training.verify`: whether ledger, registered versions and the files of the lake are as they were written.

Runs the step `verify_source` for each source and `verify_model` for each model.
"""

import json
import sys

from training.contract.errors import ExitCode, StepError
from training.contract.model_spec import model_names
from training.contract.source_spec import source_names
from training.runner import run_step
from training.settings import load_settings


def main() -> int:
    """Returns 0 when all is as it was written, else the exit code of the first step that found a fault."""
    try:
        settings = load_settings()
        steps = [("verify_source", {"source": name}) for name in source_names(settings.feature_repo)]
        steps += [("verify_model", {"model": name}) for name in model_names(settings.models_dir)]
    except StepError as error:
        print(f"verify failed: {error}", file=sys.stderr)
        return error.exit_code
    codes = [run_step(step, json.dumps(inputs), "-") for step, inputs in steps]
    return next((code for code in codes if code), ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
