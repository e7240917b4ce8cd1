"""NetworkPolicies as iptables rules: which pods of a node may talk to which.

Pure: what the API server holds goes in, text for `iptables-restore` comes out. Of the API it leaves out SCTP and IPv6.
https://kubernetes.io/docs/concepts/services-networking/network-policies/
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any

POLICY_CHAIN = "FTC-POLICY"
Object = Mapping[str, Any]


@dataclass(frozen=True)
class World:
    """The objects that decide."""

    policies: Sequence[Object]
    pods: Sequence[Object]
    namespaces: Sequence[Object]

    def addressed(self) -> list[Object]:
        """The pods that have an address of their own and may still use it."""
        return [pod for pod in self.pods if _address(pod) and not pod["spec"].get("hostNetwork") and not _ended(pod)]

    def labels_of(self, namespace: str) -> Mapping[str, str]:
        for item in self.namespaces:
            if item["metadata"]["name"] == namespace:
                return item["metadata"].get("labels") or {}
        return {}


def restore_text(world: World) -> str:
    """Replaces the rules of all pods at once. What FORWARD and INPUT send to POLICY_CHAIN returns where it is allowed."""
    chains: dict[str, list[str]] = {}
    jumps: list[str] = []
    for pod in world.addressed():
        for kind, flag in (("Ingress", "-d"), ("Egress", "-s")):
            selecting = [policy for policy in world.policies if _selects(policy, pod) and kind in _kinds(policy)]
            if selecting:
                name = _chain_name(pod, kind)
                allowed = [rule for policy in selecting for rule in _rules(world, policy, pod, kind)]
                chains[name] = [f"-A {name} {rule} -j RETURN".replace("  ", " ") for rule in allowed]
                jumps.append(f"-A {POLICY_CHAIN} {flag} {_address(pod)} -j {name}")
    declared = [f":{name} - [0:0]" for name in (POLICY_CHAIN, *chains)]
    rules = [line for name, lines in chains.items() for line in (*lines, f"-A {name} -j DROP")]
    return "\n".join(["*filter", *declared, *jumps, *rules, "COMMIT", ""])


def _rules(world: World, policy: Object, pod: Object, kind: str) -> Iterator[str]:
    """The matches, in iptables' words, of what one policy lets one pod do."""
    field, peers_field, flag = ("ingress", "from", "-s") if kind == "Ingress" else ("egress", "to", "-d")
    for rule in policy["spec"].get(field) or []:
        for match, peer in _peers(world, policy, rule.get(peers_field) or [], flag):
            # A port's name is that of the pod which is asked.
            asked = pod if kind == "Ingress" else peer
            for port in _ports(rule.get("ports") or [], asked):
                yield f"{match} {port}".strip()


def _peers(world: World, policy: Object, peers: Sequence[Object], flag: str) -> Iterator[tuple[str, Object | None]]:
    if not peers:
        yield "", None
    for peer in peers:
        if "ipBlock" in peer:
            yield from ((match, None) for match in _block(peer["ipBlock"], flag))
            continue
        for pod in world.addressed():
            if _is_peer(world, policy, peer, pod):
                yield f"{flag} {_address(pod)}", pod


def _block(block: Object, flag: str) -> Iterator[str]:
    """The match of a block; what is excepted of it is said in the same rule, as ranges that the address is not in."""
    if ":" in block["cidr"]:
        return
    without = [cidr for cidr in block.get("except") or [] if ":" not in cidr]
    side = "src" if flag == "-s" else "dst"
    excepted = " ".join(f"-m iprange ! --{side}-range {_range(cidr)}" for cidr in without)
    yield f"{flag} {block['cidr']} {excepted}".strip()


def _range(cidr: str) -> str:
    network = IPv4Network(cidr)
    return f"{network[0]}-{network[-1]}"


def _is_peer(world: World, policy: Object, peer: Object, pod: Object) -> bool:
    namespace = pod["metadata"]["namespace"]
    if "namespaceSelector" in peer:
        if not matches(peer["namespaceSelector"], world.labels_of(namespace)):
            return False
    elif namespace != policy["metadata"]["namespace"]:
        return False
    return matches(peer.get("podSelector") or {}, _labels(pod))


def _ports(ports: Sequence[Object], asked: Object | None) -> Iterator[str]:
    if not ports:
        yield ""
    for port in ports:
        protocol = port.get("protocol", "TCP").lower()
        number = _number(port.get("port"), asked)
        if number is None:
            yield f"-p {protocol}"
        elif number:
            last = f":{port['endPort']}" if port.get("endPort") else ""
            yield f"-p {protocol} --dport {number}{last}"


def _number(port: int | str | None, asked: Object | None) -> int | None:
    """None where any port is meant; 0 where the pod has no port of that name, so that nothing is allowed."""
    if port is None or isinstance(port, int):
        return port
    containers = asked["spec"]["containers"] if asked else []
    named = [entry for container in containers for entry in container.get("ports") or [] if entry.get("name") == port]
    return int(named[0]["containerPort"]) if named else 0


def matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector selects what has these labels; an empty one selects everything."""
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in expressions
    )


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    found = labels.get(expression["key"])
    values = expression.get("values") or []
    return {
        "In": found in values,
        "NotIn": found not in values,
        "Exists": found is not None,
        "DoesNotExist": found is None,
    }[expression["operator"]]


def _selects(policy: Object, pod: Object) -> bool:
    same = policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
    return same and matches(policy["spec"].get("podSelector") or {}, _labels(pod))


def _kinds(policy: Object) -> Sequence[str]:
    kinds: Sequence[str] = policy["spec"].get("policyTypes") or [
        "Ingress",
        *(["Egress"] * ("egress" in policy["spec"])),
    ]
    return kinds


def _labels(pod: Object) -> Mapping[str, str]:
    return pod["metadata"].get("labels") or {}


def _address(pod: Object) -> str:
    return str((pod.get("status") or {}).get("podIP") or "")


def _ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _chain_name(pod: Object, kind: str) -> str:
    """iptables bears 28 characters."""
    return f"FTC-{kind[0]}-{hashlib.sha256(pod['metadata']['uid'].encode()).hexdigest()[:16]}"
