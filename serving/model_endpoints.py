"""Which path is answered by which model."""

from serving.endpoint import Endpoint, PredictBatchEndpoint, PredictEndpoint
from serving.frontend import Frontend
from serving.inference_protocol.infer_endpoint import INFER, InferEndpoint


def answer_predictions(frontend: Frontend) -> None:
    """Make the endpoints of `frontend` those of the models that are served now."""
    hosts, auth, settings = frontend.hosts, frontend.auth, frontend.settings
    assert hosts is not None
    endpoints, only = dict[str, Endpoint](), hosts.only
    for name, host in hosts.all.items():
        for kind in (PredictEndpoint, PredictBatchEndpoint):
            endpoint = kind(host, auth, settings)
            endpoints[f"/models/{name}{kind.operation}"] = endpoint
            if host is only:
                endpoints[kind.operation] = endpoint
        endpoints[f"/v2/models/{name}{INFER}"] = InferEndpoint(host, auth, settings)
    frontend.endpoints.clear()
    frontend.endpoints.update(endpoints)
