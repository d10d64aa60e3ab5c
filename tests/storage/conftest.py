"""An S3-compatible store for the tests of state."""

import urllib.request
from collections.abc import Iterator

import pytest

from training import storage


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URI of a bucket; the environment leads there."""
    from moto.server import ThreadedMotoServer

    storage._store.cache_clear()  # A store of the same bucket keeps the server of an earlier module.
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "tests")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")).close()
        yield "s3://bucket"
    server.stop()
