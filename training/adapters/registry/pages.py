"""All pages of an answer of MLflow."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Registered models and versions per request.
PAGE = 200


def pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    """What `search` finds, page by page."""
    token = None
    while True:
        page = search(**arguments, page_token=token)
        yield from page
        if not (token := page.token):
            return


def versions_of(client: "MlflowClient", model: str) -> Iterator[Any]:
    """All registered versions of `model`, without their aliases."""
    return pages(client.search_model_versions, filter_string=f"name='{model}'", max_results=PAGE)


def registered_names(client: "MlflowClient") -> list[str]:
    """The names of all registered models."""
    return [model.name for model in pages(client.search_registered_models, max_results=PAGE)]
