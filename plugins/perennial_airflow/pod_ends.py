"""How a step's pod ended: the exit code of its step, or what the cluster did to it and whether a retry can help."""

from datetime import datetime
from typing import Any

from kubernetes.client import ApiException

from perennial_airflow.pod_spec import CONTAINER
from perennial_airflow.reports import UNKNOWN_ATTEMPTS, StepFailedError, step_result
from training.contract.steps import StepSpec

#: Reasons that a container waits for that no time will mend, and those that a registry's recovery may.
_NEVER_STARTS = {"InvalidImageName", "CreateContainerConfigError", "ErrImageNeverPull"}
_NO_IMAGE = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"}
#: A pod's reason when its node was taken from it; the condition DisruptionTarget says so too.
_TAKEN = {"Evicted", "Preempted", "Preempting", "NodeLost", "NodeShutdown", "Terminated", "Shutdown"}


def finished(pod: Any) -> bool:
    """Whether the pod's step runs no more and never will."""
    return pod.status.phase in ("Succeeded", "Failed") or _terminated(pod) is not None


def exit_code(pod: Any) -> int:
    """The exit code of the step in `pod`; the negative of a signal that ended it, as of a child process.

    Raises StepFailedError when the cluster ended it or never started it.
    """
    name, status = pod.metadata.name, pod.status
    ended = _terminated(pod)
    if ended is not None and ended.exit_code == 0:
        return 0
    if status.reason == "DeadlineExceeded":
        problem = f"Pod {name} ran longer than its time limit and was ended by the cluster"
        raise StepFailedError(f"{problem}\n  → Raise active_deadline_seconds in the model spec.", UNKNOWN_ATTEMPTS)
    if why := _disruption(status):
        raise StepFailedError(f"Pod {name} lost its node ({why})\n  → The next try gets another one.")
    if ended is None:
        raise _not_started(pod)
    if ended.reason == "OOMKilled":
        problem = f"Pod {name} took more memory than its limit and was killed"
        raise StepFailedError(f"{problem}\n  → Raise resources.…memory in the model spec.", UNKNOWN_ATTEMPTS)
    return ended.exit_code if ended.exit_code <= 128 else 128 - ended.exit_code


def result_without_pod(spec: StepSpec, name: str, uri: str) -> dict[str, Any]:
    """The result of a step whose pod is gone. Raises StepFailedError unless its report says success.

    The report is written last and is this try's own: if it says success, that is what it was.
    """
    try:
        return step_result(spec, 0, uri)
    except StepFailedError:
        problem = f"Pod {name} is gone before its end was seen: deleted, or its node was taken away"
        raise StepFailedError(f"{problem}\n  → The next try makes another one.") from None


def refused(name: str, error: ApiException) -> StepFailedError:
    """For a pod that the cluster does not take. Quotas pass, a manifest that breaks a rule of the cluster does not."""
    text = f"The cluster did not take pod {name}: {error.status} {error.reason}: {error.body}"
    return StepFailedError(text, attempts=1 if error.status in (400, 422) else None)


def unwatched(name: str, why: object) -> StepFailedError:
    """For a pod that nobody can see now. It may run on, so it is left alone."""
    problem = f"Pod {name} could not be watched: {why}"
    return StepFailedError(f"{problem}\n  → It is left running. The next try, or clearing this task, goes on with it.")


def not_in_time(pod: Any) -> StepFailedError:
    """For a pod that did not end, or not even start, in the time that it had."""
    state = _state(pod)
    if state is not None and state.running is not None:
        problem = f"Pod {pod.metadata.name} ran longer than the task's time limit and was ended"
        return StepFailedError(problem, UNKNOWN_ATTEMPTS)
    return _not_started(pod)


def ended_at(pod: Any) -> datetime:
    """When it ended, or, when that was not written down, when it was made."""
    ended = _terminated(pod)
    return (ended.finished_at if ended is not None else None) or pod.metadata.creation_timestamp


def _not_started(pod: Any) -> StepFailedError:
    name, waiting = pod.metadata.name, _waiting(pod)
    if waiting is not None and waiting.reason in _NEVER_STARTS:
        return StepFailedError(f"Pod {name} cannot start: {waiting.reason}: {waiting.message}", attempts=1)
    if waiting is not None and waiting.reason in _NO_IMAGE:
        problem = f"Pod {name} has no image: {waiting.reason}: {waiting.message}"
        return StepFailedError(f"{problem}\n  → Look at CT_IMAGE and CT_POD_IMAGE_PULL_SECRETS.", UNKNOWN_ATTEMPTS)
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            problem = f"Pod {name} got no node: {condition.reason}: {condition.message}"
            return StepFailedError(f"{problem}\n  → Look at what the model spec's resources ask for.")
    detail = f": {waiting.reason}" if waiting is not None else ""
    return StepFailedError(f"Pod {name} ended in phase {pod.status.phase} and left no exit code{detail}")


def _disruption(status: Any) -> str | None:
    for condition in status.conditions or []:
        if condition.type == "DisruptionTarget" and condition.status == "True":
            return f"{condition.reason}: {condition.message}"
    return f"{status.reason}: {status.message}" if status.reason in _TAKEN else None


def _state(pod: Any) -> Any:
    statuses = pod.status.container_statuses or []
    return next((status.state for status in statuses if status.name == CONTAINER), None)


def _terminated(pod: Any) -> Any:
    state = _state(pod)
    return state.terminated if state is not None else None


def _waiting(pod: Any) -> Any:
    state = _state(pod)
    return state.waiting if state is not None else None
