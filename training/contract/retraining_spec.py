"""The section `retraining` of a model spec: what asks for a training, what it costs, and what the broker allows."""

from typing import Annotated

from pydantic import Field

from training.contract.base import LONGEST_DAYS, DayCount, Spec
from training.contract.registries import KnownPolicy

#: Any currency has prices between these. Beyond them, quotients of prices are no longer finite numbers.
_LEAST, _MOST = 1e-12, 1e12
_Price = Annotated[float, Field(ge=0, le=_MOST)]


class CostsSpec(Spec):
    """Prices in one currency of your choice. The policy `cost_aware` needs both prices."""

    unit: str = ""
    """The currency, for logs and verdicts: `EUR`."""
    training: _Price | None = None
    """The price of one training: machines, people who approve, the risk of a rollout."""
    cpu_hour: _Price | None = None
    """The price of an hour of one CPU. The verdict says what the machines of a training cost."""
    gpu_hour: _Price | None = None
    """The price of an hour of one GPU."""
    loss_per_1000_predictions: float | None = Field(None, ge=_LEAST, le=_MOST)
    """What 1,000 predictions lose when the primary metric is worse by 1.0: an average precision of 0 instead of 1, or a
    rmse that is higher by 1."""
    horizon_days: DayCount = 30
    """How long the benefit of a training counts. The losses of this many days are compared with the price of one
    training."""
    confidence: float = Field(0.8, ge=0.5, lt=1)
    """How sure it must be that a training saves more than it costs."""


class RetrainingSpec(Spec):
    """The policy, and what the broker allows. Both count days of data (`as_of`), so a replay decides the same."""

    policy: KnownPolicy = "combined"
    """What monitoring may ask for: nothing (`fixed`), a training after drift (`drift`), after a loss of performance
    (`performance`), after either (`combined`), or when it pays (`cost_aware`). Also an entry point of the group
    `perennial.policy`. Schedule, code, new data and people ask as well, whatever the policy."""
    costs: CostsSpec = CostsSpec()
    persistence: int = Field(1, ge=1)
    """The number of successive windows with drift that are a reason to train."""
    cooldown_days: int = Field(7, ge=0, le=LONGEST_DAYS)
    """Days after a granted request in which no other request of its kind is granted. Drift and performance are one
    kind, a first champion and new data one each. Requests by schedule, code or a person do not wait. When monitoring
    asks again about the same champion and its state has not been good since, the wait doubles with each training."""
    cooldown_broken_by: float | None = Field(3.0, gt=1)
    """Performance does not wait for the cooldown when its drop is, with the confidence of its test, at least this many
    times what `monitoring.maximum_performance_drop` allows. `null`: it always waits."""
    budget_per_30_days: int = Field(8, ge=1)
    """The most granted requests in any 30 days. Requests by a person do not count."""
    maximum_cost_per_30_days: float | None = Field(None, gt=0)
    """The most that the trainings granted in any 30 days may cost, at `costs.training` each. Those that a person asked
    for count, but are never refused. Unset: no limit."""
