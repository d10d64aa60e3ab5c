"""`python -m perennial_airflow.roles`: the roles of Airflow's login on a cluster, from the owners of the DAGs.

For each owner of sources and models there is a role `team:<owner>`, whose users see the DAGs of their team and no
others, and may run them; and a role `release:<owner>`, whose users may roll the team's models back, approve their
versions and remove the rows of a person. Airflow's own roles stay as they are: Viewer sees all and starts nothing, User
and Op run all, Admin also manages users.

A deployment runs it after the database is migrated, so new owners and models have their roles. It sets exactly these
permissions, also when somebody changed them by hand; who has a role is left alone.
"""

import argparse
import logging
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from perennial_airflow.compat.fab import security_manager
from training.contract.errors import ConfigError, ExitCode, StepError

log = logging.getLogger(__name__)

TEAM, RELEASE = "team:", "release:"
#: Tags of the DAGs that the role `release:` is for.
RELEASES = frozenset({"rollback", "approval", "forget"})
#: What a role may do, and with what: ("can_edit", "DAG:<dag id>").
Permission = tuple[str, str]

_SEEN = ["DAG Code", "DAG Runs", "DAG Versions", "DAG Warnings", "Task Instances", "Task Logs", "XComs", "HITL Detail"]
_SEEN += ["Assets", "ImportError", "Plugins", "Website", "My Profile", "My Password"]
#: Of every team. Airflow asks for these and for the permission on the DAG itself. None is on all DAGs, and none starts
#: anything without a DAG: an event of an asset would start the DAGs of other teams.
OF_TEAMS: frozenset[Permission] = frozenset(
    {
        *(("can_read", name) for name in _SEEN),
        *(("can_edit", name) for name in ("DAG Runs", "Task Instances", "HITL Detail", "My Profile", "My Password")),
        *(("can_create", name) for name in ("DAG Runs", "Task Instances")),
        *(("menu_access", name) for name in ("DAGs", "DAG Runs", "Task Instances", "Assets", "Documentation", "Docs")),
    }
)


class OwnedDag(NamedTuple):
    """A DAG, as far as roles depend on it."""

    dag_id: str
    owner: str
    tags: frozenset[str]


def permissions(dags: Iterable[OwnedDag]) -> dict[str, set[Permission]]:
    """Role → all that it may do. A team sees its DAGs with a tag of RELEASES, and can neither start nor answer them."""
    roles: dict[str, set[Permission]] = {}
    for dag in dags:
        resource = f"DAG:{dag.dag_id}"
        team = roles.setdefault(f"{TEAM}{dag.owner}", set(OF_TEAMS))
        team.add(("can_read", resource))
        if dag.tags & RELEASES:
            release = roles.setdefault(f"{RELEASE}{dag.owner}", set(OF_TEAMS))
            release |= {("can_read", resource), ("can_edit", resource)}
        else:
            team.add(("can_edit", resource))
    return roles


def set_roles(security: Any, roles: Mapping[str, set[Permission]]) -> None:
    """Give the roles exactly these permissions. A role of ours that is not among them may do nothing any more."""
    ours = {role.name for role in security.get_all_roles() if role.name.startswith((TEAM, RELEASE))}
    for name in sorted(ours | roles.keys()):
        role = security.add_role(name)
        wanted = roles.get(name, set())
        had = {(each.action.name, each.resource.name) for each in role.permissions}
        role.permissions = [security.create_permission(*each) for each in sorted(wanted)]
        security.session.commit()
        if had != wanted:
            log.info("Role %s: %d permissions added, %d taken away", name, len(wanted - had), len(had - wanted))


def make_first_admin(security: Any, password: str) -> None:
    """The user `admin`, if there is none. The password of one who exists is not changed."""
    if security.find_user(username="admin") is not None:
        return
    admin = security.find_role("Admin")
    names = {"username": "admin", "first_name": "First", "last_name": "Admin", "email": "admin@localhost"}
    if not password or not security.add_user(**names, role=admin, password=password):
        raise ConfigError("The user admin could not be created", hint="Is the key admin-password of the Secret empty?")
    log.info("Made the user admin. Its password is the one of the Secret, until it is changed in Airflow.")


def _dags() -> list[OwnedDag]:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag()
    for file, error in bag.import_errors.items():
        log.warning("No roles for the DAGs of %s, which has an error: %s", file, error.strip().splitlines()[-1])
    return [OwnedDag(dag.dag_id, dag.owner, frozenset(dag.tags)) for dag in bag.dags.values()]


def main() -> int:
    """Returns 0, or the exit code of the error."""
    parser = argparse.ArgumentParser(
        prog="python -m perennial_airflow.roles", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--admin-password-file", type=Path, help="make the user admin, with this password, if it is missing"
    )
    file = parser.parse_args().admin_password_file
    logging.getLogger(__name__).setLevel(logging.INFO)
    try:
        roles = permissions(_dags())
        with security_manager() as security:
            set_roles(security, roles)
            if file is not None:
                make_first_admin(security, file.read_text().strip())
    except StepError as error:
        print(f"roles failed: {error}", file=sys.stderr)
        return error.exit_code
    print(f"Roles: {', '.join(sorted(roles))}")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
