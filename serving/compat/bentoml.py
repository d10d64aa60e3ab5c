"""A BentoML service whose ASGI application is wrapped in another one.

BentoML adds the middlewares of a service inside its own (OpenTelemetry, metrics, timeouts), so what shall run before
them must wrap the application. Private part: BentoML's worker hands the result of `Service.to_asgi` to uvicorn, and
leaves uvicorn's settings to their defaults.
"""

import os
from typing import Any

import bentoml

from serving.compat.uvicorn import limit_request_heads


class WrappedService(bentoml.Service):  # type: ignore[misc]
    """The class of the service has a static method `wrap`: it takes BentoML's application and returns uvicorn's."""

    def to_asgi(self, is_main: bool = True) -> Any:
        limit_request_heads()
        # By default uvicorn believes X-Forwarded-For on local connections, so a caller could forge its address.
        os.environ["FORWARDED_ALLOW_IPS"] = ""
        return self.inner.wrap(super().to_asgi(is_main))
