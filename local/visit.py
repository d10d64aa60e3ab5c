"""`python -m local.visit`: the demo's story, told to a stack that others started, such as docker compose.

`AIRFLOW_URL` and `AIRFLOW_PASSWORD` are those of its API server, `AIRFLOW_PAGES` the URL under which a browser sees it;
the landing folder and the prediction service are those of the `CT_*` settings.
"""

import os
import sys
from pathlib import Path

from local import timeline
from local.airflow_api import Airflow
from local.credentials import USER
from local.ending import told
from local.plan import Plan
from local.progress import Progress
from local.story import Story
from local.traffic import Serving
from training.contract.errors import ConfigError, StepError
from training.settings import load_settings


def visit(plan: Plan) -> bool:
    """Returns whether the whole story happened. Raises StepError when something in it fails for good."""
    settings, url = load_settings(), _needed("AIRFLOW_URL")
    pages = os.environ.get("AIRFLOW_PAGES") or url
    serving = Serving(settings.replicas[0], api_key=settings.serving_api_key)
    with Progress() as progress, Airflow(url, USER, _needed("AIRFLOW_PASSWORD"), plan.model, pages=pages) as airflow:
        story = Story(plan, Path(settings.landing), airflow, serving, progress)
        if story.retrained():
            progress.say("The story was told here before. Delete the stack's volumes and it can be told anew.")
        story.tell()
        chapters = timeline.chapters(airflow)
        progress.say("The story is told.")
    return told(chapters, serving.champion(), pages)


def _needed(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"{name} is not set", hint="The story needs to know where Airflow is and how to log in.")
    return value


def main() -> int:
    try:
        return 0 if visit(Plan()) else 1
    except StepError as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
