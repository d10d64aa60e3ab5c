"""The routes of the Open Inference Protocol besides `/v2/models/{model}/infer`: health, metadata, chosen versions.

They are not in the OpenAPI document, because the protocol has its own:
https://github.com/kserve/open-inference-protocol
"""

import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response

from serving.dispatcher import read_body
from serving.endpoint import VERSION_HEADER
from serving.frontend import Frontend
from serving.inference_protocol.infer_endpoint import INFER, InferEndpoint, as_json, protocol_refusal
from serving.inference_protocol.protocol_metadata import model_metadata, server_metadata
from serving.request import HttpResponse
from serving.schema import BadRequest, Problem

if TYPE_CHECKING:
    from serving.model_host import ModelHost
    from serving.model_hosts import ModelHosts

#: The protocol wants a 4xx status when something is not ready.
NOT_READY = 400
#: It counts as ready: a client that finds a model not ready would never send the request that loads it.
UNLOADED = "unloaded: the next request loads it"
MODEL, VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"

Answer = Callable[["ModelHosts", Request], Awaitable[HttpResponse]]


def add_protocol(app: FastAPI, frontend: Frontend) -> None:
    """Add the routes to `app`."""

    def add(path: str, method: str, answer: Answer, guarded: bool = True) -> None:
        async def handle(request: Request) -> Response:
            return await _handled(frontend, request, answer, guarded)

        app.add_route(path, handle, methods=[method], include_in_schema=False)

    async def infer(hosts: "ModelHosts", request: Request) -> HttpResponse:
        """The dispatcher answers requests to a model that is served, unless they name a version."""
        return await _infer(InferEndpoint(_host(hosts, request), frontend.auth, frontend.settings), request)

    add("/v2", "GET", _server)
    add("/v2/health/live", "GET", _live, guarded=False)
    add("/v2/health/ready", "GET", _ready, guarded=False)
    add("/v2/repository/index", "POST", _index)
    for path in (MODEL, VERSION):
        add(path, "GET", _metadata)
        add(f"{path}/ready", "GET", _model_ready)
        add(path + INFER, "POST", infer)
    for method in ("GET", "POST"):
        add("/v2/{path:path}", method, _unknown)


async def _handled(frontend: Frontend, request: Request, answer: Answer, guarded: bool) -> Response:
    try:
        if guarded:
            frontend.auth.check(dict(request.headers.raw), request.client.host if request.client else None)
        if frontend.hosts is None:
            raise BadRequest(503, Problem(error="The service is starting"), retry_after=1)
        found = await answer(frontend.hosts, request)
    except BadRequest as refused:
        found = protocol_refusal(refused)
    headers = {name.decode(): value.decode() for name, value in found.headers}
    return Response(found.content, found.status, headers, found.content_type.decode())


async def _server(hosts: "ModelHosts", request: Request) -> HttpResponse:
    return as_json(server_metadata(hosts.replica.settings.git_sha or ""))


async def _live(hosts: "ModelHosts", request: Request) -> HttpResponse:
    return as_json({"live": True})


async def _ready(hosts: "ModelHosts", request: Request) -> HttpResponse:
    return _readiness({}, hosts.why_not_ready())


async def _model_ready(hosts: "ModelHosts", request: Request) -> HttpResponse:
    try:
        host, version = _host(hosts, request), request.path_params.get("version")
    except BadRequest as refused:
        if refused.status == 503:
            return _readiness({"name": request.path_params["model"]}, refused.problem.error)
        raise
    reason = host.why_not_ready() if version is None or _serves(host, version) else _not_served(version)
    return _readiness({"name": host.spec.name, "loaded": host.loaded}, reason)


async def _metadata(hosts: "ModelHosts", request: Request) -> HttpResponse:
    host, version = _host(hosts, request), request.path_params.get("version")
    if version is not None and not _serves(host, version):
        raise BadRequest(404, Problem(error=_not_served(version)))
    return as_json(model_metadata(host.spec, _versions(host)))


async def _infer(endpoint: InferEndpoint, request: Request) -> HttpResponse:
    received, headers = time.perf_counter(), request.headers.raw
    if version := request.path_params.get("version"):
        headers = [*(each for each in headers if each[0] != VERSION_HEADER), (VERSION_HEADER, version.encode())]
    try:
        body = await read_body(request.receive)
    except BadRequest as refused:
        return endpoint.refuse(refused)
    return await endpoint.answer({**request.scope, "headers": headers}, body or b"", received)


async def _index(hosts: "ModelHosts", request: Request) -> HttpResponse:
    """Every version that serves or was refused."""
    body = await read_body(request.receive)
    try:
        only_ready = bool(body and json.loads(body).get("ready"))
    except (ValueError, AttributeError, RecursionError):
        raise BadRequest(400, Problem(error="The body is not a JSON object")) from None
    found: list[dict[str, Any]] = []
    for name, host in sorted(hosts.all.items()):
        reason = UNLOADED if host.watcher.traffic.unloaded else ""
        versions = {version: ("READY", reason) for version in _versions(host)}
        versions |= {version: ("UNAVAILABLE", refusal.reason) for version, refusal in host.watcher.refused.items()}
        for version, (state, reason) in sorted(versions.items()):
            found.append({"name": name, "version": str(version), "state": state, "reason": reason})
        if not versions:
            found.append({"name": name, "state": "UNAVAILABLE", "reason": host.why_not_ready() or ""})
    return as_json([each for each in found if each["state"] == "READY" or not only_ready])


async def _unknown(hosts: "ModelHosts", request: Request) -> HttpResponse:
    raise BadRequest(404, Problem(error=f"{request.method} {request.url.path} is no part of the protocol here"))


def _readiness(about: dict[str, Any], reason: str | None) -> HttpResponse:
    if reason is None:
        return as_json(about | {"ready": True})
    return as_json(about | {"ready": False, "error": reason}, NOT_READY)


def _host(hosts: "ModelHosts", request: Request) -> "ModelHost":
    """Raises BadRequest when the model is not served."""
    return hosts.of(request.path_params["model"])


def _versions(host: "ModelHost") -> list[int]:
    """Those that serve, also while the model is unloaded."""
    return sorted({version.version for version in host.watcher.traffic.versions.values()})


def _serves(host: "ModelHost", wanted: str) -> bool:
    """`wanted`: an alias or a version."""
    versions = host.watcher.traffic.versions
    return wanted in versions or wanted in {str(each.version) for each in versions.values()}


def _not_served(version: str) -> str:
    return f"{version!r} is no version that is loaded here"
