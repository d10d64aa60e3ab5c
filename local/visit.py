"""`python -m local.visit [<model>]`: runs the demo of a model on a stack that others started, such as docker compose.

`AIRFLOW_URL` and `AIRFLOW_PASSWORD` are those of its API server. `AIRFLOW_PAGES` is the URL for browsers. The `CT_*`
settings name the landing folder and the prediction service.
"""

import os
import sys
from pathlib import Path

from local import timeline
from local.airflow_api import Airflow
from local.credentials import USER
from local.plans import DEFAULT, Plan, plan_of
from local.progress import Progress
from local.scenario import Scenario
from local.summary import print_summary
from local.traffic import Serving
from training.contract.errors import ConfigError, StepError
from training.settings import load_settings


def visit(plan: Plan) -> bool:
    """Returns whether the whole scenario happened. Raises StepError when a part of it fails for good."""
    settings, url = load_settings(), _needed("AIRFLOW_URL")
    pages = os.environ.get("AIRFLOW_PAGES") or url
    serving = Serving(settings.replicas()[0], plan.model, api_key=settings.serving_api_key)
    with (
        Progress() as progress,
        Airflow(url, USER, _needed("AIRFLOW_PASSWORD"), plan.source, plan.model, pages=pages) as airflow,
    ):
        scenario = Scenario(plan, Path(settings.landing), airflow, serving, progress)
        if scenario.retrained():
            progress.say("The demo has run here before. To run it again from the start, delete the stack's volumes.")
        scenario.run()
        entries = timeline.entries(airflow)
        progress.say("The scenario is over.")
    return print_summary(plan, entries, serving.champion(), pages)


def _needed(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"{name} is not set", hint="Set it: the scenario needs Airflow's URL and a login.")
    return value


def main() -> int:
    try:
        model = sys.argv[1] if len(sys.argv) > 1 else DEFAULT
        return 0 if visit(plan_of(model)) else 1
    except StepError as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
