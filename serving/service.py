"""What BentoML serves: `bentoml serve serving.service:Service --host 127.0.0.1 --port 3000`.

BentoML looks `Service` up in its parent process and in the worker. Set BENTOML_DO_NOT_TRACK=true and BENTOML_HOME (see
`local/`).
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`Service` is built when it is looked up, so importing this module does nothing."""
    if name != "Service":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from serving.app import build
    from training.settings import load_settings

    return build(load_settings())
