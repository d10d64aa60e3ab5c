"""Files that the pages show: reports from the work folder, and their own style, script and Plotly.

A report is foreign HTML, made of data. A browser runs it in a sandbox: its scripts, which Evidently's page needs, have
an origin of their own. They reach neither the login nor Airflow's API, and nothing is fetched from anywhere.
"""

from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from fastapi import HTTPException
from fastapi.responses import FileResponse, Response

from training import storage
from training.settings import StateSettings

STATIC = Path(__file__).parent / "static"
SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
#: The folders of a model in the work folder whose files are reports. Data sets and artifacts are not served.
REPORTS = frozenset({"backtests", "drift", "evidence", "rollouts", "skew", "verdicts"})
#: Ending → type. Markdown and JSON are shown as they are.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".png": "image/png",
}
_STATIC_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
#: The largest report, in bytes.
_LARGEST = 64 << 20


def of_model(model: str, path: str, settings: StateSettings) -> Response:
    """A report of a model. Raises HTTPException 404 for all that is not one."""
    kind, _, within = path.partition("/")
    if kind not in REPORTS:
        raise HTTPException(404, f"There is no report {path}.")
    return _report(storage.join(settings.work, model, kind), within)


def of_source(source: str, path: str, settings: StateSettings) -> Response:
    """A page about a partition of a source. Raises HTTPException 404 for all that is not one."""
    return _report(storage.join(settings.work, source, "data_docs"), path)


def _report(folder: str, path: str) -> Response:
    kind, uri = _TYPES.get(PurePosixPath(path).suffix), storage.join(folder, path)
    if kind is None or not path or not storage.lies_in(uri, folder):
        raise HTTPException(404, f"There is no report {path}.")
    size = storage.size(uri)
    content = storage.read(uri) if size is not None and size <= _LARGEST else None
    if content is None:
        problem = f"There is no report {path}. It was deleted by retention, or the version is older than this page."
        raise HTTPException(404, f"{problem} `make evidence` fetches the evidence that MLflow keeps.")
    return Response(content, media_type=kind, headers={"Content-Security-Policy": SANDBOX, **SAFE})


def static(name: str) -> Response:
    """A file of ours, or Plotly. Raises HTTPException 404 for any other name."""
    path = plotly() if name == "plotly.min.js" else STATIC / name
    kind = _STATIC_TYPES.get(PurePosixPath(name).suffix)
    if kind is None or path is None or PurePosixPath(name).name != name or not path.is_file():
        raise HTTPException(404, f"There is no file {name}.")
    return FileResponse(path, media_type=kind, headers={"Cache-Control": "max-age=3600", **SAFE})


def plotly() -> Path | None:
    """Plotly's script in the package plotly, which is not imported; None without the package."""
    found = find_spec("plotly")
    for folder in found.submodule_search_locations or () if found else ():
        if (script := Path(folder, "package_data", "plotly.min.js")).is_file():
            return script
    return None
