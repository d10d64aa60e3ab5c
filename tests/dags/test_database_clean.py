"""The command of the CronJob that cleans Airflow's database, on a database of Airflow."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

VALUES = Path(__file__).parents[2] / "helm" / "airflow-values.yaml"

pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.mark.long
def test_what_is_older_than_90_days_goes_and_the_rest_stays() -> None:
    from airflow.models.log import Log
    from airflow.utils.session import create_session
    from sqlalchemy import select

    cleanup = yaml.safe_load(VALUES.read_text())["databaseCleanup"]
    now = datetime.now(UTC)
    with create_session() as session:
        for days in (89, 92):
            entry = Log(event=f"{days} days ago")
            entry.dttm = now - timedelta(days=days)
            session.add(entry)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run([*cleanup["command"], *cleanup["args"]], env=environment, check=True, timeout=300)
    with create_session() as session:
        left = session.scalars(select(Log.event).where(Log.event.like("%days ago"))).all()
    assert left == ["89 days ago"]
