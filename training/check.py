"""`python -m training.check [MODEL …]`: finds every mistake in the files of these models, or of all models."""

import logging
import sys
import time

from training.contract.errors import ExitCode, StepError
from training.contract.model_spec import misnamed_specs, model_names
from training.settings import load_settings
from training.steps.check import find_problems, listing


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 78 when there is a mistake."""
    names = sys.argv[1:] if argv is None else argv
    try:
        settings = load_settings()
        logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s", stream=sys.stderr)
        strays = [] if names else misnamed_specs(settings.models_dir)
        for line in listing(strays):
            print(f"✗ {line}")
        broken = bool(strays)
        for name in names or model_names(settings.models_dir):
            started = time.monotonic()
            problems = find_problems(name, settings)
            sure = [problem for problem in problems if problem.sure]
            broken |= bool(sure)
            seconds = time.monotonic() - started
            print(f"✗ {name}: {len(sure)} to correct" if sure else f"✓ {name}: nothing to correct ({seconds:.1f} s)")
            for problem, line in zip(problems, listing(problems), strict=True):
                print(f"  {'' if problem.sure else '(this may be intended) '}{line}")
    except StepError as error:
        print(f"check failed: {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.BAD_CONFIG if broken else ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
