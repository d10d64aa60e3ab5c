"""A process of a step under torchrun (training/distributed.py). The first runs the step, the others assist it."""

import signal
import sys

from training.__main__ import main as run_here
from training.adapters.processes import Processes
from training.contract.processes import end_with_parent
from training.runner import assist_step


def main(argv: list[str]) -> int:
    """Returns the exit code. `argv` is `<step> --inputs <json> --result <path>`."""
    end_with_parent()
    if Processes.here().rank == 0:
        return run_here(argv)
    # SIGTERM ends an assistant at once: it has nothing to save, and Python handles no signal while it waits for others.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    step, _, inputs = argv[:3]
    return assist_step(step, inputs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
