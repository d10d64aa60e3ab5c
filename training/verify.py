"""`python -m training.verify`: whether ledger, registered versions and the files of the lake are unchanged.

Runs the step `verify_source` for each source, `verify_model` for each model, and checks the ledgers of
models that were removed.
"""

import json
import sys

from training.adapters.ledger import Ledger
from training.contract.errors import ExitCode, StepError
from training.contract.model_spec import model_names
from training.contract.source_spec import source_names
from training.ledger_verify import without_spec
from training.runner import run_step
from training.settings import load_settings


def main() -> int:
    """Returns 0 when nothing was changed, else the exit code of the first step that found a fault."""
    try:
        settings = load_settings()
        steps = [("verify_source", {"source": name}) for name in source_names(settings.feature_repo)]
        models = model_names(settings.models_dir)
        steps += [("verify_model", {"model": name}) for name in models]
        removed = sorted(set(Ledger(settings.ledger).models()) - set(models))
    except StepError as error:
        print(f"verify failed: {error}", file=sys.stderr)
        return error.exit_code
    codes = [run_step(step, json.dumps(inputs), "-") for step, inputs in steps]
    codes += [without_spec(model, settings) for model in removed]
    return next((code for code in codes if code), ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
