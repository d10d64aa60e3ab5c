"""A BentoML service whose ASGI application is wrapped in another one, and whose OpenAPI document is about our API.

BentoML adds the middlewares of a service inside its own (OpenTelemetry, metrics, timeouts), so what shall run before
them must wrap the application. Private part: BentoML's worker hands the result of `Service.to_asgi` to uvicorn, and
leaves uvicorn's settings to their defaults. `Service.openapi_spec` is what it answers at `/docs.json`.
"""

import os
from typing import Any

import attrs
import bentoml

from serving.compat.uvicorn import limit_request_heads


class WrappedService(bentoml.Service):  # type: ignore[misc]
    """The class of the service has a static method `wrap`: it takes BentoML's application and returns uvicorn's."""

    def to_asgi(self, is_main: bool = True) -> Any:
        limit_request_heads()
        # By default uvicorn believes X-Forwarded-For on local connections, so a caller could forge its address.
        os.environ["FORWARDED_ALLOW_IPS"] = ""
        return self.inner.wrap(super().to_asgi(is_main))

    @property
    def openapi_spec(self) -> Any:
        """BentoML's document with title, version, description and tags of the mounted application."""
        from bentoml._internal.service.openapi.specification import Info, Tag

        document, [(app, *_)] = super().openapi_spec, self.mount_apps
        info = Info(title=app.title, version=app.version, description=app.description)
        infrastructure = [tag for tag in document.tags if tag.name == "Infrastructure"]
        return attrs.evolve(document, info=info, tags=[Tag(**tag) for tag in app.openapi_tags] + infrastructure)
