"""`python -m training <step> --inputs '<json>' --result <uri>`: runs a step, for people and for every launcher."""

import argparse
import json
import sys
from pathlib import Path

from training.contract.errors import InputError
from training.contract.steps import STEPS, step_spec
from training.runner import STANDARD_OUTPUT, run_step


def main(argv: list[str] | None = None) -> int:
    lines = [f"  {spec.name:<12} {spec.summary}" for spec in STEPS.values()]
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Run one step of the loop.",
        epilog="steps:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", metavar="STEP")
    parser.add_argument("--inputs", default="{}", help="JSON, @file, or - for standard input")
    parser.add_argument("--result", default=STANDARD_OUTPUT, help="URI of the report; - (default) is standard output")
    parser.add_argument("--schema", action="store_true", help="print the step's JSON Schemas, run nothing")
    args = parser.parse_args(argv)
    try:
        inputs = read_inputs(args.inputs)
        spec = step_spec(args.step) if args.schema else None
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if spec:
        print(json.dumps({part: getattr(spec, part).model_json_schema() for part in ("inputs", "result")}, indent=2))
        return 0
    return run_step(args.step, inputs, args.result)


def read_inputs(inputs: str) -> str:
    """The JSON that the argument `--inputs` stands for. Raises InputError for a file that cannot be read."""
    if inputs != "-" and not inputs.startswith("@"):
        return inputs
    try:
        return sys.stdin.read() if inputs == "-" else Path(inputs[1:]).read_text()
    except (OSError, UnicodeDecodeError) as error:
        where = "standard input" if inputs == "-" else inputs[1:]
        raise InputError(f"The inputs cannot be read from {where}: {error}", "Name a file of JSON.") from error


if __name__ == "__main__":
    sys.exit(main())
