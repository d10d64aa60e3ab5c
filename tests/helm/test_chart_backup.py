"""The CronJob that backs up the state."""

import pytest

from tests.helm.chart import PRODUCTION, Manifest, environment, merged, named, nested, of_kind, render
from tests.helm.conftest import EVERYTHING


def test_no_backup_is_made_unless_it_is_wanted(production: list[Manifest]) -> None:
    assert not of_kind(production, "CronJob")


def test_the_job_has_what_a_backup_reads_and_no_password_as_a_value(everything: list[Manifest]) -> None:
    job = named(everything, "CronJob", "perennial-backup")["spec"]
    assert (job["concurrencyPolicy"], job["timeZone"]) == ("Forbid", "Etc/UTC")
    (container,) = job["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "training.backup", "make"]
    given = environment(container)
    assert given["CT_BACKUP_URI"] == "s3://backups/perennial"
    assert given["CT_BACKUP_ARTIFACTS_URI"] == "s3://bucket/mlflow"
    assert given["CT_BACKUP_AIRFLOW_DATABASE"] == {"secretKeyRef": {"name": "airflow-database", "key": "uri"}}
    assert given["CT_BACKUP_REGISTRY_DATABASE"] == "$(MLFLOW_BACKEND_STORE_URI)"
    # Kubernetes resolves references to variables that come before.
    names = [each["name"] for each in container["env"]]
    assert names.index("MLFLOW_BACKEND_STORE_URI") < names.index("CT_BACKUP_REGISTRY_DATABASE")


@pytest.mark.parametrize(
    ("value", "said"), [({"uri": "/backups"}, "backup.uri"), ({"airflowDatabase": {"existingSecret": ""}}, "Secret")]
)
def test_a_backup_that_could_not_work_is_refused(value: dict, said: str) -> None:
    import helm_python

    given = {"enabled": True, "uri": "s3://b/p", "airflowDatabase": {"existingSecret": "s"}}
    with pytest.raises(helm_python.HelmError, match=said):
        render(merged(PRODUCTION, nested("backup", merged(given, value))))


def test_a_backup_has_no_credentials_of_steps_but_a_secret_of_its_own() -> None:
    own = nested("backup.credentials.existingSecret", "backup-credentials")
    job = named(render(merged(PRODUCTION, EVERYTHING, own)), "CronJob", "perennial-backup")["spec"]["jobTemplate"][
        "spec"
    ]
    (container,) = job["template"]["spec"]["containers"]
    assert [source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source] == [
        "backup-credentials"
    ]
