"""The section `resources` of a spec: what a step needs on a cluster. Only the launcher `pod` reads it.

Quantities are written as in Kubernetes (`500m`, `4Gi`). An override has only the fields that differ.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from training.contract.base import Spec
from training.contract.names import QUANTITY_PATTERN
from training.contract.steps import STEPS

Quantity = Annotated[str, Field(pattern=QUANTITY_PATTERN)]


class Toleration(Spec):
    """A taint that the step's pod tolerates."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Resources(Spec):
    """The resources of one step. With `nodes` above 1, each of its pods has these."""

    cpu: Quantity = "1"
    """The request. There is no limit, so a step also uses idle cores of its node."""
    memory: Quantity = "2Gi"
    """Request and limit. Files in shared memory count."""
    ephemeral_storage: Quantity = "4Gi"
    """Request and limit for /tmp and the log."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm, which torch uses to pass tensors between processes. Unset: the runtime's default, 64 MiB."""
    gpus: int = Field(0, ge=0)
    """`nvidia.com/gpu` per pod. With more than one, torchrun starts a process for each."""
    gpu_product: str | None = None
    """The node label `nvidia.com/gpu.product`, which NVIDIA's feature discovery sets: `NVIDIA-A100-SXM4-80GB`."""
    node_selector: dict[str, str] = {}
    tolerations: Annotated[tuple[Toleration, ...], Field(strict=False)] = ()
    """Added to the toleration of `nvidia.com/gpu`, which every step with GPUs has."""
    runtime_class: str | None = None
    priority_class: str | None = None
    """Unset: CT_POD_PRIORITY_CLASS."""
    nodes: int = Field(1, ge=1)
    """Pods that train together, under torchrun."""
    schedule_timeout_seconds: int = Field(1800, ge=1, le=86_400)
    """How long the pod may wait for room in the namespace's quota, and then for a node."""
    startup_timeout_seconds: int = Field(900, ge=1, le=86_400)
    """How long the pod may take to start once it has a node. The image is pulled in this time."""
    active_deadline_seconds: int | None = Field(None, ge=1)
    """How long the step may run before the cluster ends it. Unset: the step's own time limit."""

    def overridden(self, other: "Resources | None") -> "Resources":
        """A copy with the fields that `other` sets."""
        if other is None:
            return self
        return self.model_copy(update={field: getattr(other, field) for field in other.model_fields_set})


class StepResources(Spec):
    """The default, overridden per step."""

    default: Resources = Resources()
    steps: dict[str, Resources] = {}

    @field_validator("steps")
    @classmethod
    def _steps_exist(cls, steps: dict[str, Resources]) -> dict[str, Resources]:
        if unknown := sorted(set(steps) - set(STEPS)):
            raise ValueError(f"{unknown} are not steps; the steps are {', '.join(STEPS)}")
        return steps

    def of(self, step: str, estimator: str | None = None) -> Resources:
        """The resources of `step`. `estimator` is the one that `train` fits or `search` tries."""
        return self.default.overridden(self.steps.get(step))


class ResourcesSpec(StepResources):
    """For `train` and `search` overridden again per estimator. `search` needs what `train` needs, and has that."""

    estimators: dict[str, Resources] = {}

    def of(self, step: str, estimator: str | None = None) -> Resources:
        found = super().of("train" if step == "search" else step)
        if step == "search":
            found = found.overridden(self.steps.get(step))
        return found.overridden(self.estimators.get(estimator)) if estimator else found
