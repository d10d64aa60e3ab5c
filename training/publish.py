"""`python -m training.publish`: applies every source's feature definitions to the published Feast registry.

Run it after a deployment. The step `materialize` does the same for its source. Definitions that have not changed are
skipped.
"""

import logging
import sys

from training.adapters.features import OnlineRows
from training.contract.errors import ExitCode, StepError
from training.contract.source_spec import load_source_spec, source_names
from training.settings import load_settings


def main() -> int:
    """Returns 0, or the exit code of the error."""
    try:
        settings = load_settings()
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
        for name in source_names(settings.feature_repo):
            OnlineRows(settings, load_source_spec(name, settings.feature_repo)).publish()
    except StepError as error:
        print(f"publish failed: {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
