"""How Airflow reaches the cluster: through a named connection, the service account of its own pod, or KUBECONFIG."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook, KubernetesHook
from kubernetes.config import incluster_config


def in_a_pod() -> bool:
    """Whether this process runs in a pod that has a service account's token."""
    host = os.environ.get(incluster_config.SERVICE_HOST_ENV_NAME)
    return bool(host) and Path(incluster_config.SERVICE_TOKEN_FILENAME).is_file()


@dataclass(frozen=True)
class ClusterAccess:
    """The task decides this once, for its own client and for the triggerer's.

    Without `in_cluster` the provider's two hooks differ: the task's hook tries the service account, the triggerer's
    hook does not. So `in_cluster` is always set, unless the connection names a kube config.
    """

    #: The id of Airflow's connection. None: no connection is used, not even `kubernetes_default`.
    connection: str | None
    #: The extra fields of the connection.
    extras: dict[str, Any]
    #: Whether to use the service account of this pod. None: the connection has a kube config.
    in_cluster: bool | None

    @classmethod
    def of(cls, connection: str | None) -> "ClusterAccess":
        """Raises AirflowNotFoundException when there is no such connection."""
        extras = KubernetesHook.get_connection(connection).extra_dejson if connection else {}
        given = {name.removeprefix("extra__kubernetes__") for name, value in extras.items() if value}
        if given & {"kube_config", "kube_config_path"}:
            return cls(connection, extras, None)
        return cls(connection, extras, "in_cluster" in given or in_a_pod())

    def hook(self) -> KubernetesHook:
        return KubernetesHook(conn_id=self.connection, kubernetes_conn_id=None, in_cluster=self.in_cluster)

    def async_hook(self) -> AsyncKubernetesHook:
        return AsyncKubernetesHook(
            conn_id=self.connection,
            kubernetes_conn_id=None,
            connection_extras=self.extras,
            in_cluster=self.in_cluster,
        )

    @property
    def trigger_arguments(self) -> dict[str, Any]:
        """Arguments of the provider's pod trigger, from which it makes a hook like `async_hook`.

        `config_dict` is None so that the triggerer reads its own kube config. The provider would store the content of
        the task's in Airflow's database.
        """
        return {
            "kubernetes_conn_id": self.connection,
            "connection_extras": self.extras,
            "in_cluster": self.in_cluster,
            "config_dict": None,
        }
