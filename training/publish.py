"""`python -m training.publish`: applies every model's feature definitions to the published Feast registry.

Run it after a deployment. The step `materialize` does the same for its model. Definitions that have not changed are
skipped.
"""

import logging
import sys

from training.adapters.features import Features
from training.contract.errors import ExitCode, StepError
from training.contract.model_spec import load_model_spec, model_names
from training.settings import load_settings


def main() -> int:
    """Returns 0, or the exit code of the error."""
    try:
        settings = load_settings()
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
        for name in model_names(settings.models_dir):
            Features(settings, load_model_spec(name, settings.models_dir)).publish()
    except StepError as error:
        print(f"publish failed: {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
