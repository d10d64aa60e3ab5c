"""Copies the output of a step to the log of its task."""

import logging
import re
from typing import IO, Any

#: The format of a step's log lines (training/runner.py). Airflow's log adds its own time and level.
_LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR|CRITICAL) (.*)$")


def copy_output(output: IO[str], log: Any) -> None:
    """Copy a step's output to the task's log line by line, until it ends. Closes `output`."""
    with output:
        for line in output:
            log_line(line, log)


def log_line(line: str, log: Any) -> None:
    """Log one line of a step's output at the level that the step gave it; INFO when it gave none."""
    match = _LINE.match(line.rstrip())
    level, text = match.groups() if match else ("INFO", line.rstrip())
    log.log(logging.getLevelNamesMapping()[level], "%s", text)
