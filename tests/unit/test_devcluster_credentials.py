"""Certificates and kubeconfigs of a cluster."""

import base64
import stat
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from finetune_devcluster import credentials
from finetune_devcluster.certificates import Authority, KeyPair
from finetune_devcluster.components import Credentials
from finetune_devcluster.layout import Layout
from finetune_devcluster.network import Network


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, "unit")
    layout.make_folders()
    return layout


@pytest.fixture
def issued(layout: Layout) -> Credentials:
    return credentials.issue(layout, Network("ftc-unit", 7))


def load(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


def policy(authority: KeyPair) -> PolicyBuilder:
    return PolicyBuilder().store(Store([load(authority)])).time(datetime.now(UTC))


def subject(certificate: x509.Certificate) -> dict[str, str]:
    names = {NameOID.COMMON_NAME: "user", NameOID.ORGANIZATION_NAME: "group"}
    return {names[a.oid]: str(a.value) for a in certificate.subject}


@pytest.mark.parametrize(
    "host",
    [
        x509.IPAddress(IPv4Address("10.201.7.2")),
        x509.IPAddress(IPv4Address("10.96.0.1")),
        x509.IPAddress(IPv4Address("127.0.0.1")),
        x509.DNSName("localhost"),
        x509.DNSName("kubernetes.default.svc"),
    ],
    ids=str,
)
def test_the_api_server_is_who_its_clients_ask_for(issued: Credentials, host: x509.DNSName | x509.IPAddress) -> None:
    policy(issued.authority).build_server_verifier(host).verify(load(issued.api_server), [])


def test_the_kubelet_api_serves_at_the_nodes_address(issued: Credentials) -> None:
    address = x509.IPAddress(IPv4Address("10.201.7.2"))
    policy(issued.authority).build_server_verifier(address).verify(load(issued.kubelet), [])


def test_another_clusters_server_is_refused(issued: Credentials, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    address = x509.IPAddress(IPv4Address("10.201.7.2"))
    with pytest.raises(VerificationError):
        policy(other.files).build_server_verifier(address).verify(load(issued.api_server), [])


def test_the_authority_of_the_front_proxy_signs_no_users(issued: Credentials) -> None:
    front_proxy = load(issued.front_proxy_authority)
    load(issued.front_proxy_client).verify_directly_issued_by(front_proxy)
    with pytest.raises(ValueError, match="does not match certificate issuer"):
        load(issued.administrator).verify_directly_issued_by(front_proxy)


@pytest.mark.parametrize(
    ("component", "who"),
    [
        ("kube-controller-manager", {"user": "system:kube-controller-manager"}),
        ("kube-scheduler", {"user": "system:kube-scheduler"}),
        ("node", {"user": "devcluster:node-0", "group": "system:masters"}),
    ],
)
def test_each_component_logs_in_under_its_own_name(
    layout: Layout, issued: Credentials, component: str, who: dict[str, str]
) -> None:
    config = yaml.safe_load(layout.component_kubeconfig(component).read_text())
    pem = base64.b64decode(config["users"][0]["user"]["client-certificate-data"])
    certificate = x509.load_pem_x509_certificate(pem)
    assert subject(certificate) == who
    certificate.verify_directly_issued_by(load(issued.authority))
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_the_kubeconfig_needs_no_other_file(layout: Layout, issued: Credentials) -> None:
    config = yaml.safe_load(layout.kubeconfig.read_text())
    cluster, user, context = (config[k][0] for k in ("clusters", "users", "contexts"))
    assert cluster["cluster"]["server"] == "https://10.201.7.2:6443"
    authority = base64.b64decode(cluster["cluster"]["certificate-authority-data"])
    assert authority == issued.authority.certificate.read_bytes()
    assert base64.b64decode(user["user"]["client-key-data"]) == issued.administrator.key.read_bytes()
    assert context["context"] == {"cluster": cluster["name"], "user": user["name"]}
    assert config["current-context"] == context["name"] == "unit"


def test_private_keys_are_readable_by_their_owner_only(layout: Layout, issued: Credentials) -> None:
    secret = [layout.kubeconfig, *layout.certificates.glob("*.key"), *layout.state.glob("*.kubeconfig")]
    assert len(secret) > 10
    assert {stat.S_IMODE(file.stat().st_mode) for file in secret} == {0o600}
    assert stat.S_IMODE(layout.state.stat().st_mode) == 0o700


def test_a_second_issue_keeps_the_authority_and_the_key_of_tokens(layout: Layout, issued: Credentials) -> None:
    kept = [issued.authority.certificate, issued.authority.key, issued.service_account_key]
    before = [file.read_bytes() for file in kept]
    again = credentials.issue(layout, Network("ftc-unit", 8))
    assert [file.read_bytes() for file in kept] == before
    address = x509.IPAddress(IPv4Address("10.201.8.2"))
    policy(again.authority).build_server_verifier(address).verify(load(again.api_server), [])
