"""`python -m training.check [--source NAME] [--model NAME]`: finds every mistake in the files of sources and models.

With `--source` those of that source and its models, with `--model` those of that model and its source.
"""

import argparse
import logging
import sys

from training.contract.errors import ExitCode, StepError
from training.contract.model_spec import model_names, models_of, source_of
from training.contract.source_spec import source_names
from training.contract.spec_file import misnamed_specs, spec_file
from training.settings import StateSettings, load_settings
from training.steps.check import listing
from training.steps.check.all_files import Checked, check_all


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 78 when there is a mistake."""
    parser = argparse.ArgumentParser(prog="training.check")
    parser.add_argument("--source", default="")
    parser.add_argument("--model", default="")
    wanted = parser.parse_args(argv)
    try:
        settings = load_settings()
        logging.basicConfig(level="WARNING", format="%(levelname)s %(message)s", stream=sys.stderr)
        sources, models = _chosen(wanted.source, wanted.model, settings)
        all_of_them = not wanted.source and not wanted.model
        strays = [*misnamed_specs(settings.models_dir), *misnamed_specs(settings.feature_repo)] if all_of_them else []
        for line in listing(strays):
            print(f"✗ {line}")
        broken = bool(strays)
        for checked in check_all(sources, models, settings):
            broken |= _report(checked)
    except StepError as error:
        print(f"check failed: {error}", file=sys.stderr)
        return error.exit_code
    return ExitCode.BAD_CONFIG if broken else ExitCode.OK


def _chosen(source: str, model: str, settings: StateSettings) -> tuple[list[str], list[str]]:
    """The sources and the models to check. A model without a source, or of one that does not exist, reports that
    itself."""
    known = source_names(settings.feature_repo)
    if model:
        spec_file("model", model, settings.models_dir, model_names)  # Raises ConfigError when there is none.
        of = source_of(model, settings.models_dir)
        return [of] if of in known else [], [model]
    return ([source], models_of(source, settings.models_dir)) if source else (known, model_names(settings.models_dir))


def _report(checked: Checked) -> bool:
    """Print what was found. Returns whether there is something to correct."""
    what, problems = checked.what, checked.problems
    sure = [problem for problem in problems if problem.sure]
    if checked.waits_for:
        print(f"– {what}: not checked: correct {checked.waits_for} first")
        return False
    print(f"✗ {what}: {len(sure)} to correct" if sure else f"✓ {what}: nothing to correct ({checked.seconds:.1f} s)")
    for problem, line in zip(problems, listing(problems), strict=True):
        print(f"  {'' if problem.sure else '(this may be intended) '}{line}")
    return bool(sure)


if __name__ == "__main__":
    sys.exit(main())
