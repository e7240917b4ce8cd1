"""Who is who in a cluster: issues every certificate and writes the kubeconfigs.

Users and groups are those of https://kubernetes.io/docs/setup/best-practices/certificates/
"""

from finetune_devcluster import kubeconfig
from finetune_devcluster.certificates import Authority, ensure_private_key
from finetune_devcluster.components import (
    CONTROLLER_MANAGER,
    FRONT_PROXY_USER,
    KUBE_PROXY,
    KUBELET,
    KUBERNETES_SERVICE_IP,
    NODE,
    NODE_NAME,
    SCHEDULER,
    Credentials,
    server_url,
)
from finetune_devcluster.layout import Layout
from finetune_devcluster.network import Network

ADMINISTRATORS = "system:masters"


def issue(layout: Layout, network: Network) -> Credentials:
    """Issue all certificates anew; the authority and the service accounts' key are made once and kept."""
    authority = Authority(layout.certificates, "ca")
    # Not the same authority: whoever it signs for may speak in the name of any user.
    front_proxy = Authority(layout.certificates, "front-proxy-ca")
    credentials = Credentials(
        authority=authority.files,
        service_account_key=ensure_private_key(layout.certificates / "service-account.key"),
        api_server=authority.server("kube-apiserver", "kube-apiserver", _api_server_hosts(network)),
        kubelet=authority.server("kubelet", f"system:node:{NODE_NAME}", _kubelet_hosts(network), "system:nodes"),
        kubelet_client=authority.client("kubelet-client", "kube-apiserver-kubelet-client", ADMINISTRATORS),
        front_proxy_authority=front_proxy.files,
        front_proxy_client=front_proxy.client("front-proxy-client", FRONT_PROXY_USER),
        administrator=authority.client("admin", "devcluster-admin", ADMINISTRATORS),
    )
    users = {
        layout.kubeconfig: credentials.administrator,
        layout.component_kubeconfig(CONTROLLER_MANAGER): authority.client(
            CONTROLLER_MANAGER, f"system:{CONTROLLER_MANAGER}"
        ),
        layout.component_kubeconfig(SCHEDULER): authority.client(SCHEDULER, f"system:{SCHEDULER}"),
        # The process node is volume provisioner and service proxy too, for which a kubelet has no rights.
        layout.component_kubeconfig(NODE): authority.client(NODE, f"devcluster:{NODE_NAME}", ADMINISTRATORS),
        # A real node's programs have the rights that Kubernetes itself gives to these names.
        layout.component_kubeconfig(KUBELET): authority.client(
            "system-node", f"system:node:{NODE_NAME}", "system:nodes"
        ),
        layout.component_kubeconfig(KUBE_PROXY): authority.client(KUBE_PROXY, f"system:{KUBE_PROXY}"),
    }
    for file, user in users.items():
        kubeconfig.write(file, layout.name, server_url(network), credentials.authority.certificate, user)
    return credentials


def _kubelet_hosts(network: Network) -> list[str]:
    return [NODE_NAME, network.cluster_ip, "127.0.0.1"]


def _api_server_hosts(network: Network) -> list[str]:
    service_names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    full_name = "kubernetes.default.svc.cluster.local"
    return [*service_names, full_name, "localhost", "127.0.0.1", network.cluster_ip, KUBERNETES_SERVICE_IP]
