"""What the roles of teams may do."""

from perennial_airflow.roles import OF_TEAMS, OwnedDag, permissions

DAGS = [
    OwnedDag("fraud_train", "payments", frozenset({"fraud", "train"})),
    OwnedDag("fraud_rollback", "payments", frozenset({"fraud", "rollback"})),
    OwnedDag("fraud_approval", "payments", frozenset({"fraud", "approval"})),
    OwnedDag("delay_train", "planning", frozenset({"delay", "train"})),
]


def test_a_team_may_run_its_dags_and_only_look_at_rollbacks_and_approvals() -> None:
    assert permissions(DAGS)["team:payments"] - OF_TEAMS == {
        ("can_read", "DAG:fraud_train"),
        ("can_edit", "DAG:fraud_train"),
        ("can_read", "DAG:fraud_rollback"),
        ("can_read", "DAG:fraud_approval"),
    }


def test_a_role_of_its_own_may_roll_back_and_approve() -> None:
    roles = permissions(DAGS)
    assert roles["release:payments"] - OF_TEAMS == {
        ("can_read", "DAG:fraud_rollback"),
        ("can_edit", "DAG:fraud_rollback"),
        ("can_read", "DAG:fraud_approval"),
        ("can_edit", "DAG:fraud_approval"),
    }
    assert "release:planning" not in roles


def test_no_role_may_do_anything_to_all_dags_or_to_users() -> None:
    resources = {resource for _, resource in OF_TEAMS}
    assert resources.isdisjoint({"Users", "Roles", "Connections", "Variables", "Pools", "Configurations"})
    assert {action for action, resource in OF_TEAMS if resource == "DAGs"} == {"menu_access"}
    assert ("can_create", "Assets") not in OF_TEAMS
