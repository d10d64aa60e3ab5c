"""What a step asks of a cluster: the section `resources` of a model spec. Only the pod launcher reads it.

Quantities are Kubernetes' (`500m`, `4Gi`). An override names only what differs from the default.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from training.contract.base import Spec
from training.contract.steps import STEPS

Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]


class Toleration(Spec):
    """A taint that the step's pod puts up with."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Resources(Spec):
    """What one step gets. With `nodes` above 1 each of its pods gets as much."""

    cpu: Quantity = "1"
    """Requested. Not a limit: idle cores of the node are used too."""
    memory: Quantity = "2Gi"
    """Requested, and the limit; files in shared memory count."""
    ephemeral_storage: Quantity = "4Gi"
    """Requested, and the limit, of /tmp and the log."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm, through which torch's loaders and processes hand tensors; unset: the runtime's 64 MiB."""
    gpus: int = Field(0, ge=0)
    """`nvidia.com/gpu` per pod. More than one: a process for each, under torchrun."""
    gpu_product: str | None = None
    """The node's `nvidia.com/gpu.product`, as NVIDIA's feature discovery labels it: `NVIDIA-A100-SXM4-80GB`."""
    node_selector: dict[str, str] = {}
    tolerations: Annotated[tuple[Toleration, ...], Field(strict=False)] = ()
    """In addition to `nvidia.com/gpu`, which a step with GPUs tolerates anyway."""
    runtime_class: str | None = None
    priority_class: str | None = None
    """Unset: CT_POD_PRIORITY_CLASS."""
    nodes: int = Field(1, ge=1)
    """Pods that train together, under torchrun."""
    schedule_timeout_seconds: int = Field(1800, ge=1, le=86_400)
    """How long the pod may wait for a node."""
    startup_timeout_seconds: int = Field(900, ge=1, le=86_400)
    """How long it may take from there to its start: the image is pulled."""
    active_deadline_seconds: int | None = Field(None, ge=1)
    """How long it may run before the cluster ends it; unset: the step's own time limit."""

    def overridden(self, other: "Resources | None") -> "Resources":
        """With the fields that `other` names."""
        if other is None:
            return self
        return self.model_copy(update={field: getattr(other, field) for field in other.model_fields_set})


class ResourcesSpec(Spec):
    """`default`, what each step changes of it, and what `train` changes again for an estimator."""

    default: Resources = Resources()
    steps: dict[str, Resources] = {}
    estimators: dict[str, Resources] = {}

    @field_validator("steps")
    @classmethod
    def _steps_exist(cls, steps: dict[str, Resources]) -> dict[str, Resources]:
        if unknown := sorted(set(steps) - set(STEPS)):
            raise ValueError(f"{unknown} are no steps; the steps: {', '.join(STEPS)}")
        return steps

    def of(self, step: str, estimator: str | None = None) -> Resources:
        """What `step` gets; `estimator` is the one that `train` fits."""
        found = self.default.overridden(self.steps.get(step))
        return found.overridden(self.estimators.get(estimator)) if estimator else found
