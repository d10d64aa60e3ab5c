"""A small HTTP server that speaks as much of Kubernetes' API as step pods need, and keeps pods in memory.

Pods end as a test says: `ends` is called with each new pod and may return its status; None leaves it running. Jobs get
no pods; a test puts them in.
"""

import json
import re
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
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
    """`folder` gets the files that are mounted into a pod with a service account: the token and the authority."""

    def __init__(self, ends: Callable[[Manifest], Manifest | None], folder: Path) -> None:
        self.ends = ends
        self.folder = folder
        self.pods: dict[str, Manifest] = {}
        self.jobs: dict[str, Manifest] = {}
        self.logs: dict[str, list[tuple[datetime, str]]] = {}
        self.created: list[Manifest] = []
        self.deleted: list[str] = []
        #: What creating answers instead, as (status, message).
        self.refuses: tuple[int, str] | None = None
        #: What reading and listing answer instead.
        self.hides: tuple[int, str] | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        certificate, key = _certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def mount_service_account(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As in a pod of the cluster: the files where both clients look, and the variables of every container."""
        (self.folder / "token").write_text("t")
        for package in ("kubernetes.config", "kubernetes_asyncio.config"):
            module = f"{package}.incluster_config"
            monkeypatch.setattr(f"{module}.SERVICE_TOKEN_FILENAME", str(self.folder / "token"))
            monkeypatch.setattr(f"{module}.SERVICE_CERT_FILENAME", str(self.folder / "ca.crt"))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(self._server.server_address[1]))

    def kubeconfig(self, path: Path) -> Path:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": self.url, "certificate-authority": str(self.folder / "ca.crt")}}
            ],
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

    def create_job(self, job: Manifest) -> Manifest:
        job["metadata"]["uid"] = job["metadata"]["name"]
        job["status"] = {}
        self.jobs[job["metadata"]["name"]] = job
        self.created.append(job)
        return job


def selected(things: dict[str, Manifest], selector: str) -> list[Manifest]:
    wanted = [term.split("=") for term in selector.split(",") if re.fullmatch(r"[^!=]+=[^=]*", term)]
    return [each for each in things.values() if all(each["metadata"]["labels"].get(k) == v for k, v in wanted)]


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cluster")])
    usage = x509.KeyUsage(True, False, False, False, False, True, False, False, False)
    public = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(usage, critical=True).add_extension(public, critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(public), critical=False
    )
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key").write_bytes(private)
    return folder / "ca.crt", folder / "key"


def _handler(cluster: Cluster) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            kind, name, log, query = self._path()
            if cluster.hides:
                self._status(*cluster.hides)
            elif log:
                stamped = [f"{at.isoformat().replace('+00:00', 'Z')} {line}\n" for at, line in cluster.logs[name]]
                self._answer(200, "".join(stamped).encode())
            elif name:
                self._one(kind, name)
            else:
                items = selected(self._all(kind), query.get("labelSelector", [""])[0])
                self._answer(200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})

        def do_POST(self) -> None:
            kind = self._path()[0]
            made = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if cluster.refuses:
                self._status(*cluster.refuses)
            elif made["metadata"]["name"] in self._all(kind):
                self._status(409, "AlreadyExists")
            elif kind == "pods":
                self._answer(201, cluster.create(made))
            else:
                self._answer(201, cluster.create_job(made) if kind == "jobs" else made)

        def do_DELETE(self) -> None:
            kind, name, _, _ = self._path()
            if name in self._all(kind):
                cluster.deleted.append(name)
            self._one(kind, name)
            self._all(kind).pop(name, None)

        def _path(self) -> tuple[str, str, bool, dict[str, list[str]]]:
            url = urlsplit(self.path)
            path = r"/(?:api|apis/batch)/v1/namespaces/ml/(pods|jobs|services)(?:/([^/]+))?(/log|/status)?"
            match = re.fullmatch(path, url.path)
            assert match, url.path
            return match.group(1), match.group(2) or "", match.group(3) == "/log", parse_qs(url.query)

        def _all(self, kind: str) -> dict[str, Manifest]:
            return {"pods": cluster.pods, "jobs": cluster.jobs}.get(kind, {})

        def _one(self, kind: str, name: str) -> None:
            found = self._all(kind).get(name)
            self._answer(200, found) if found else self._status(404, f'{kind} "{name}" not found')

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
