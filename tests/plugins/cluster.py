"""A small HTTP server that speaks as much of Kubernetes' API as step pods need, and keeps pods in memory.

Pods end as a test says: `ends` is called with each new pod and may return its status; None leaves it running.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Manifest = dict[str, Any]
RUNNING = {"phase": "Running", "containerStatuses": [{"name": "step", "state": {"running": {}}}]}


def ended(code: int, reason: str = "Completed", **status: Any) -> Manifest:
    """The status of a pod whose step ended with exit code `code`."""
    now = datetime.now(UTC).isoformat()
    state = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": now, "startedAt": now}}
    return {"phase": "Failed" if code else "Succeeded", "containerStatuses": [_container(state)], **status}


def waiting(reason: str, message: str = "") -> Manifest:
    return {"phase": "Pending", "containerStatuses": [_container({"waiting": {"reason": reason, "message": message}})]}


def _container(state: Manifest) -> Manifest:
    common = {"ready": False, "restartCount": 0, "image": "training", "imageID": ""}
    return {"name": "step", "state": state, **common}


RUNNING["containerStatuses"] = [_container({"running": {"startedAt": datetime.now(UTC).isoformat()}})]


class Cluster:
    def __init__(self, ends: Callable[[Manifest], Manifest | None]) -> None:
        self.ends = ends
        self.pods: dict[str, Manifest] = {}
        self.logs: dict[str, list[tuple[datetime, str]]] = {}
        self.created: list[Manifest] = []
        self.deleted: list[str] = []
        #: What creating answers instead, as (status, message).
        self.refuses: tuple[int, str] | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, path: Path) -> Path:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "ml"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def create(self, pod: Manifest) -> Manifest:
        pod["metadata"].setdefault("creationTimestamp", datetime.now(UTC).isoformat())
        self.pods[pod["metadata"]["name"]] = pod
        self.logs.setdefault(pod["metadata"]["name"], [])
        pod["status"] = self.ends(pod) or RUNNING
        self.created.append(pod)
        return pod

    def select(self, selector: str) -> list[Manifest]:
        wanted = [term.split("=") for term in selector.split(",") if re.fullmatch(r"[^!=]+=[^=]*", term)]
        return [p for p in self.pods.values() if all(p["metadata"]["labels"].get(k) == v for k, v in wanted)]


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            name, log, query = self._path()
            if log:
                stamped = [f"{at.isoformat().replace('+00:00', 'Z')} {line}\n" for at, line in cluster.logs[name]]
                self._answer(200, "".join(stamped).encode())
            elif name:
                self._pod(name)
            else:
                items = cluster.select(query.get("labelSelector", [""])[0])
                self._answer(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

        def do_POST(self) -> None:
            pod = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if cluster.refuses:
                self._status(*cluster.refuses)
            elif pod["metadata"]["name"] in cluster.pods:
                self._status(409, "AlreadyExists")
            else:
                self._answer(201, cluster.create(pod))

        def do_DELETE(self) -> None:
            name, _, _ = self._path()
            if name in cluster.pods:
                cluster.deleted.append(name)
            self._pod(name)
            cluster.pods.pop(name, None)

        def _path(self) -> tuple[str, bool, dict[str, list[str]]]:
            url = urlsplit(self.path)
            match = re.fullmatch(r"/api/v1/namespaces/ml/pods(?:/([^/]+))?(/log)?", url.path)
            assert match, url.path
            return match.group(1) or "", bool(match.group(2)), parse_qs(url.query)

        def _pod(self, name: str) -> None:
            pod = cluster.pods.get(name)
            self._answer(200, pod) if pod else self._status(404, f'pods "{name}" not found')

        def _status(self, code: int, message: str) -> None:
            self._answer(code, {"kind": "Status", "apiVersion": "v1", "code": code, "message": message})

        def _answer(self, code: int, body: Any) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(body, bytes) else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler
