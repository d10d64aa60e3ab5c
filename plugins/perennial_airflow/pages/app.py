"""The pages: their routes, headers and errors. All are read-only, and none is shown without Airflow's login."""

import logging
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from perennial_airflow.life.store import Overviews, entries, events, overview
from perennial_airflow.life.summary import Level
from perennial_airflow.pages import files
from perennial_airflow.pages.access import ReadableDep, get_user, login_url
from perennial_airflow.pages.links import Links
from perennial_airflow.pages.model_page import model_page
from perennial_airflow.pages.overview_page import overview_page
from perennial_airflow.pages.rendering import render
from training.contract.errors import StepError
from training.settings import load_settings

log = logging.getLogger(__name__)

#: Of our own pages: only our scripts run. Plotly writes style elements, and draws pictures from data.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
#: Events and ledger entries that a model's page shows at first, and at most.
SHOWN, MOST = 400, 6_400


def make_app() -> FastAPI:
    """The application that Airflow's API server mounts."""
    # Without the pages of the API's schema, which need no login.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(get_user)])
    app.exception_handler(HTTPException)(_refused)
    app.exception_handler(StepError)(_unavailable)
    app.exception_handler(OSError)(_unavailable)
    _add_pages(app)
    _add_files(app)
    return app


def _add_pages(app: FastAPI) -> None:
    overviews = Overviews()

    @app.get("/")
    def index(
        request: Request,
        readable: ReadableDep,
        q: Annotated[str, Query(max_length=100)] = "",
        status: Level | Literal[""] = "",
        page: Annotated[int, Query(ge=1, le=10_000)] = 1,
    ) -> Response:
        settings = load_settings()
        found = overviews.read(settings)
        return _html(overview_page(readable.models, found, Links.of(request, settings), q, status, page))

    @app.get("/models/{model}")
    def life(
        request: Request,
        model: str,
        readable: ReadableDep,
        newest: Annotated[int, Query(ge=1, le=MOST)] = SHOWN,
        routine: bool = False,
    ) -> Response:
        readable.require_model(model)
        settings = load_settings()
        about = overview(model, settings)
        sees_source = bool(about.source) and readable.may_see_source(about.source)
        found = (
            events("models", model, newest, settings),
            events("sources", about.source, newest, settings) if sees_source else None,
            entries(model, newest, settings),
        )
        more = min(2 * newest, MOST) if newest < MOST and max(len(found[0]), len(found[2])) >= newest else None
        return _html(model_page(about, *found, Links.of(request, settings), routine, more))

    @app.get("/dags/{dag_id}")
    def of_dag(request: Request, dag_id: str, readable: ReadableDep) -> Response:
        """The page of the model that a DAG belongs to. Of the DAG of a source, the models that learn from it."""
        links, parts, models = Links.of(request, load_settings()), dag_id.split("_"), set(readable.models)
        names = ["_".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]
        if model := next((name for name in names if name in models), None):
            return RedirectResponse(links.model(model))
        return RedirectResponse(links.overview(q=next(filter(readable.may_see_source, names), "")))


def _add_files(app: FastAPI) -> None:
    @app.get("/models/{model}/reports/{path:path}")
    def report(model: str, path: str, readable: ReadableDep) -> Response:
        readable.require_model(model)
        return files.of_model(model, path, load_settings())

    @app.get("/sources/{source}/partitions/{path:path}")
    def partition(source: str, path: str, readable: ReadableDep) -> Response:
        readable.require_source(source)
        return files.of_source(source, path, load_settings())

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        return files.static(name)


def _html(page: str, status: int = 200) -> Response:
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store", **files.SAFE}
    return HTMLResponse(page, status, headers)


def _refused(request: Request, error: Exception) -> Response:
    """A browser that is not logged in is redirected to the login; a program, which does not ask for HTML, gets an
    error."""
    assert isinstance(error, HTTPException)
    if "text/html" not in request.headers.get("accept", ""):
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    if error.status_code == 401:
        return RedirectResponse(login_url(str(request.url)))
    return _html(_problem(request, str(error.detail)), error.status_code)


def _unavailable(request: Request, error: Exception) -> Response:
    """The store does not answer, refuses access, or the settings are wrong."""
    log.warning("The pages about models cannot be shown: %s", error)
    hint = getattr(error, "hint", "")
    return _html(_problem(request, getattr(error, "message", None) or str(error), hint), 503)


def _problem(request: Request, message: str, hint: str = "") -> str:
    fields: dict[str, Any] = {"message": message, "hint": hint}
    return render("problem.html", base=request.scope.get("root_path", ""), title="Not shown", **fields)
