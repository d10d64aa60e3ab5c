"""`python -m training.restore_online [source …]`: fill the online store again from the newest feature tables.

For a store that was flushed, lost or replaced. It runs the step `materialize` for each source, with the newest versions
of its tables. Data runs may continue meanwhile: newer rows stay.
"""

import json
import sys

from training.contract.errors import ExitCode, StepError
from training.contract.source_spec import source_names
from training.runner import run_step
from training.settings import load_settings


def main(sources: list[str]) -> int:
    """Returns 0, or the exit code of the first source that failed. `sources`: empty for all."""
    try:
        wanted = sources or source_names(load_settings().feature_repo)
    except StepError as error:
        print(f"restore_online failed: {error}", file=sys.stderr)
        return error.exit_code
    codes = [run_step("materialize", json.dumps({"source": source}), "-") for source in wanted]
    return next((code for code in codes if code), ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
