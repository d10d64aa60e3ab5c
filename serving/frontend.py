"""What HTTP needs of the service: who may call, and who answers a path. The worker fills in the rest when it starts."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from serving.auth import Auth
from serving.endpoint import Endpoint
from serving.served_specs import ServedSpecs
from training.settings import ServingSettings

if TYPE_CHECKING:
    from serving.model_hosts import ModelHosts


@dataclass
class Frontend:
    settings: ServingSettings
    specs: ServedSpecs
    auth: Auth
    #: Path → who answers POST requests to it, before BentoML's middlewares.
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    #: The ASGI application of the management port. None before it is made.
    management: Any = None
    #: None before the worker has started.
    hosts: "ModelHosts | None" = None
