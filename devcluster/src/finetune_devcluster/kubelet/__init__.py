"""A real node: containerd with runc, the kubelet, kube-proxy and CoreDNS in the cluster's own network namespace."""
