"""Which number, and so which addresses, a new cluster gets."""

from ipaddress import IPv4Network

import pytest

from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.network import NUMBERS, Network, choose_number


@pytest.mark.parametrize(
    ("case", "links", "networks", "expected"),
    [
        ("an empty machine", [], [], 1),
        ("other links do not count", ["lo", "eth0", "ftc-x"], ["192.0.2.0/24"], 1),
        ("the first is taken", ["ftc-1"], [], 2),
        ("a gap is filled", ["ftc-1", "ftc-3"], [], 2),
        ("the subnet is somebody else's", [], ["10.201.1.0/30"], 2),
        ("one address in the subnet is somebody else's", [], ["10.201.1.1/32"], 2),
        ("a network of the machine covers some", [], ["10.201.0.0/22"], 4),
    ],
)
def test_the_first_number_with_free_link_and_subnet_is_chosen(
    case: str, links: list[str], networks: list[str], expected: int
) -> None:
    assert choose_number(links, [IPv4Network(network) for network in networks]) == expected, case


def test_when_all_are_taken_the_message_says_how_to_free_one() -> None:
    with pytest.raises(DevclusterError, match="devcluster down"):
        choose_number([f"ftc-{number}" for number in NUMBERS], [])


def test_addresses_follow_from_the_number() -> None:
    network = Network("ftc-mine", 7)
    assert (network.host_link, network.host_ip, network.cluster_ip) == ("ftc-7", "10.201.7.1", "10.201.7.2")
