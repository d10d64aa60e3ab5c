"""A port for operators, which answers everything: also /metrics, the OpenAPI page and /admin.

The port of predictions is routed to callers outside. It does not answer for these, so that a wrong route or a policy
that is too wide does not open them.
"""

import asyncio
import socket
from typing import Any

from serving.compat.uvicorn import QuietServer, server_config
from serving.dispatcher import respond
from serving.request import HttpResponse
from serving.schema import Problem
from training.contract.errors import ConfigError

#: Paths that both ports answer, and those that begin with one of the prefixes. Rollouts read /models.
PUBLIC_PATHS = ("/predict", "/predict_batch", "/models", "/livez", "/readyz", "/healthz", "/v2")
PUBLIC_PREFIXES = ("/models/", "/v2/")


def with_management_elsewhere(app: Any) -> Any:
    """The ASGI application `app` without what belongs to the management port: 404."""
    problem = Problem(error="Not on this port: CT_SERVING_MANAGEMENT_PORT names the one of metrics, docs and /admin")
    missing = HttpResponse(404, problem.model_dump_json().encode())

    async def public(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan" or _is_public(scope["path"]):
            await app(scope, receive, send)
        elif scope["type"] == "http":
            await respond(send, missing)
        else:
            await send({"type": "websocket.close", "code": 1008})

    return public


def _is_public(path: str) -> bool:
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES)


class ManagementServer:
    """Serves `app` on `port` of all interfaces too, from the running event loop; nothing when `port` is 0.

    Raises ConfigError when the port cannot be had.
    """

    def __init__(self, app: Any, port: int) -> None:
        self._server: QuietServer | None = None
        if port:
            try:
                self._socket = socket.create_server(("0.0.0.0", port))
            except OSError as error:
                hint = "Stop the program that has it, or set another port."
                raise ConfigError(f"CT_SERVING_MANAGEMENT_PORT={port}: {error.strerror}", hint) from error
            self._server = QuietServer(server_config(app))
            self._task = asyncio.get_running_loop().create_task(self._server.serve([self._socket]))

    def stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = True
