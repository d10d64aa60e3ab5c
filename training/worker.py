"""One process of a step that runs under torchrun (training/distributed.py): the first runs the step, others assist."""

import signal
import sys

from training.__main__ import main as run_here
from training.adapters.processes import Processes
from training.contract.processes import end_with_parent
from training.runner import assist_step


def main(argv: list[str]) -> int:
    """`argv` is the step's: `<step> --inputs <json> --result <path>`."""
    end_with_parent()
    if Processes.here().rank == 0:
        return run_here(argv)
    # It holds nothing that is worth saving, and a signal is not heard by Python while it waits for the others.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    step, _, inputs = argv[:3]
    return assist_step(step, inputs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
