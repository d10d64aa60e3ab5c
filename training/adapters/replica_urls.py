"""A URL that stands for several replicas: `dns+http://name:port` is every address that the name resolves to.

Behind a headless Service of Kubernetes a name has one address per pod, and pods come and go. The name is resolved again
for every status check, so a rollout waits for the replicas that exist now.
"""

import socket
from urllib.parse import urlsplit

PREFIX = "dns+"


def expand(url: str) -> list[str]:
    """The URLs that `url` stands for, sorted; `url` itself without the prefix `dns+`.

    Raises OSError when its name has no address now, ValueError when it has no name or no port.
    """
    if not url.startswith(PREFIX):
        return [url]
    parts = urlsplit(url.removeprefix(PREFIX))
    if parts.scheme != "http" or not parts.hostname or not parts.port:
        raise ValueError(f"{url} is not of the form dns+http://name:port")
    found = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    hosts = {_host(family, address) for family, _, _, _, address in found}
    return [f"http://{host}:{parts.port}{parts.path}" for host in sorted(hosts)]


def _host(family: int, address: tuple) -> str:
    return f"[{address[0]}]" if family == socket.AF_INET6 else str(address[0])
