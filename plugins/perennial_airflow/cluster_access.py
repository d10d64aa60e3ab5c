"""How Airflow reaches the cluster: by a connection that is named, its own pod's service account, or KUBECONFIG."""

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
    """Decided once, by the task, for its own client and for the triggerer's.

    The provider's two hooks decide differently when nothing is said: the task's tries the service account, the
    triggerer's does not. So `in_cluster` is always said, unless the connection says which kube config to use.
    """

    #: Airflow's connection; None: none is looked up, not even `kubernetes_default`.
    connection: str | None
    #: The connection's settings.
    extras: dict[str, Any]
    in_cluster: bool | None

    @classmethod
    def of(cls, connection: str | None) -> "ClusterAccess":
        """Raises AirflowNotFoundException when there is no such connection."""
        extras = KubernetesHook.get_connection(connection).extra_dejson if connection else {}
        said = {name.removeprefix("extra__kubernetes__") for name, value in extras.items() if value}
        if said & {"kube_config", "kube_config_path"}:
            return cls(connection, extras, None)
        return cls(connection, extras, "in_cluster" in said or in_a_pod())

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
        """For the provider's pod trigger, which makes a hook like `async_hook` of them.

        The triggerer reads its own kube config; the provider would send it the content of the task's.
        """
        return {
            "kubernetes_conn_id": self.connection,
            "connection_extras": self.extras,
            "in_cluster": self.in_cluster,
            "config_dict": None,
        }
