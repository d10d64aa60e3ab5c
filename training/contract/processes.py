"""How the processes of a step end: with their parent, and how long after SIGTERM."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1

#: Seconds between SIGTERM and SIGKILL for a step, by where it runs. In this time a step saves its checkpoint and writes
#: its report. On the machine of its Airflow task: Airflow kills a task 5 s after it has asked it to stop, and the step
#: must have ended by then.
LOCAL_GRACE_SECONDS = 3.0
#: In a pod. Kubernetes sends SIGKILL at the end.
POD_GRACE_SECONDS = 60
#: Under torchrun in a pod: shorter, so that training.distributed can still write the report.
TORCHRUN_GRACE_SECONDS = POD_GRACE_SECONDS // 3


def end_with_parent() -> None:
    """Send SIGTERM to the calling process when its parent dies for any reason (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
