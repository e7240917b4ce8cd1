"""What the process node makes of Services and EndpointSlices: forwarding and names."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from finetune_devcluster.node.hosts import HostsFiles, PodNames, hostname_of, render, write_in_place
from finetune_devcluster.node.proxy import ServiceProxy
from finetune_devcluster.node.services import Address, ServiceName, backends, names

LOOPBACK = "127.0.0.1"


def service(
    name: str, *, ips: tuple[str, ...] = ("10.96.0.10",), ports: tuple[dict[str, Any], ...] = ()
) -> dict[str, Any]:
    spec = {"clusterIPs": list(ips), "ports": list(ports) or [{"port": 80}]}
    return {"metadata": {"name": name, "namespace": "ml"}, "spec": spec}


def endpoint(address: str, *, ready: bool | None = True, hostname: str | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"addresses": [address], "conditions": {} if ready is None else {"ready": ready}}
    return found | ({"hostname": hostname} if hostname else {})


def endpoint_slice(
    name: str, *endpoints: dict[str, Any], ports: tuple[dict[str, Any], ...] = ({"port": 8000},)
) -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": name}
    return {
        "metadata": {"name": f"{name}-x", "namespace": "ml", "labels": labels},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": list(ports),
    }


def test_ready_endpoints_are_forwarded_to_by_port_name() -> None:
    ports = (
        {"name": "web", "port": 80},
        {"name": "metrics", "port": 9090},
        {"name": "udp", "port": 53, "protocol": "UDP"},
    )
    targets = ({"name": "web", "port": 8000}, {"name": "metrics", "port": 8001}, {"name": "udp", "port": 53})
    found = backends(
        [service("api", ports=ports)],
        [endpoint_slice("api", endpoint("10.244.0.2"), endpoint("10.244.0.3", ready=False), ports=targets)],
    )
    assert found == {("10.96.0.10", 80): [("10.244.0.2", 8000)], ("10.96.0.10", 9090): [("10.244.0.2", 8001)]}


def test_an_address_without_ready_endpoints_is_not_listened_on() -> None:
    assert backends([service("api")], [endpoint_slice("api", endpoint("10.244.0.2", ready=False))]) == {}


def test_readiness_that_is_not_told_counts_as_ready() -> None:
    found = backends([service("api")], [endpoint_slice("api", endpoint("10.244.0.2", ready=None))])
    assert list(found.values()) == [[("10.244.0.2", 8000)]]


def test_a_headless_service_is_named_by_its_endpoints_and_their_hostnames() -> None:
    found = names([service("ring", ips=("None",))], [endpoint_slice("ring", endpoint("10.244.0.2", hostname="ring-0"))])
    assert found == [
        ServiceName("10.244.0.2", "ring", "ml"),
        ServiceName("10.244.0.2", "ring", "ml", "ring-0"),
    ]


def test_hosts_hold_every_form_of_a_service_and_the_short_one_in_its_own_namespace_only() -> None:
    known = [ServiceName("10.96.0.10", "api", "ml"), ServiceName("10.96.0.1", "kubernetes", "default")]
    lines = render(PodNames("10.244.0.2", "ml", "trainer-0"), known).splitlines()
    assert "127.0.0.1\tlocalhost" in lines
    assert "10.244.0.2\ttrainer-0" in lines
    assert "10.96.0.10\tapi.ml.svc.cluster.local api.ml.svc api.ml api" in lines
    assert "10.96.0.1\tkubernetes.default.svc.cluster.local kubernetes.default.svc kubernetes.default" in lines


def test_hosts_hold_the_peers_of_a_subdomain() -> None:
    known = [ServiceName("10.244.0.3", "ring", "ml", "ring-1")]
    text = render(PodNames("10.244.0.2", "ml", "ring-0", "ring"), known)
    assert "10.244.0.2\tring-0.ring.ml.svc.cluster.local ring-0" in text
    assert "10.244.0.3\tring-1.ring.ml.svc.cluster.local ring-1.ring.ml.svc ring-1.ring.ml ring-1.ring" in text


def test_host_aliases_of_the_spec_are_kept() -> None:
    spec = {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["hub", "hub.example"]}]}
    manifest = {"metadata": {"name": "p", "namespace": "ml"}, "spec": spec}
    assert "10.0.0.1\thub hub.example" in render(PodNames.of(manifest, "10.244.0.2"), [])


def test_a_long_pod_name_is_cut_to_a_hostname() -> None:
    name = "a" * 62 + "-" + "b" * 10
    assert hostname_of({"metadata": {"name": name}, "spec": {}}) == "a" * 62


def test_hosts_are_rewritten_in_place_as_services_come_and_go(tmp_path: Path) -> None:
    known: list[ServiceName] = [ServiceName("10.96.0.10", "a-long-service-name", "ml")]
    file = tmp_path / "hosts"
    files = HostsFiles(lambda: known)
    files.add(file, PodNames("10.244.0.2", "ml", "p"))
    inode = os.stat(file).st_ino
    assert "a-long-service-name" in file.read_text()
    known.clear()
    files.update()
    assert "a-long-service-name" not in file.read_text()
    assert os.stat(file).st_ino == inode
    files.remove(file)
    known.append(ServiceName("10.96.0.11", "later", "ml"))
    files.update()
    assert "later" not in file.read_text()


def test_a_shorter_text_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    write_in_place(file, "a long first text\n")
    write_in_place(file, "short\n")
    assert file.read_text() == "short\n"


@asynccontextmanager
async def echo_server(name: bytes) -> AsyncIterator[Address]:
    """Answers with its name and what it was sent, once the sender has closed its half of the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name + b":" + await reader.read())
        writer.close()

    server = await asyncio.start_server(answer, LOOPBACK, 0)
    async with server:
        yield server.sockets[0].getsockname()


async def free_address() -> Address:
    server = await asyncio.start_server(lambda _, __: None, LOOPBACK, 0)
    address: Address = server.sockets[0].getsockname()
    server.close()
    await server.wait_closed()
    return address


async def ask(address: Address, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(text)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def test_connections_take_turns_and_pass_over_an_endpoint_that_refuses() -> None:
    async def scenario() -> list[bytes]:
        proxy, address, nobody = ServiceProxy(), await free_address(), await free_address()
        async with echo_server(b"one") as one, echo_server(b"two") as two:
            await proxy.update({address: [one, nobody, two]})
            answers = [await ask(address, b"x") for _ in range(6)]
            await proxy.close()
        return answers

    answers = asyncio.run(scenario())
    assert set(answers) == {b"one:x", b"two:x"}
    assert len(answers) == 6


def test_many_bytes_pass_unchanged_in_both_directions() -> None:
    text = os.urandom(3_000_000)

    async def scenario() -> bytes:
        proxy, address = ServiceProxy(), await free_address()
        async with echo_server(b"one") as one:
            await proxy.update({address: [one]})
            answer = await ask(address, text)
            await proxy.close()
        return answer

    assert asyncio.run(scenario()) == b"one:" + text


def test_a_service_that_has_lost_its_endpoints_refuses_connections() -> None:
    async def scenario() -> bool:
        proxy, address = ServiceProxy(), await free_address()
        async with echo_server(b"one") as one:
            await proxy.update({address: [one]})
            await ask(address, b"x")
            await proxy.update({})
            try:
                await ask(address, b"x")
            except ConnectionRefusedError:
                return True
            return False

    assert asyncio.run(scenario())
