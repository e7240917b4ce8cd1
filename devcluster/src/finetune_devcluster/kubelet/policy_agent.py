"""Holds the pods of a cluster to its NetworkPolicies; runs in the cluster's network namespace.

A bridge network enforces none, and no implementation is to be had as a Go module. Looks twice a second, so a new pod is
free for about that long.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from finetune_devcluster.api_client import ApiClient
from finetune_devcluster.kubelet.policies import POLICY_CHAIN, World, restore_text

LOOK_SECONDS = 0.5
# Pods to pods, and pods to the API server, which listens on the node itself.
_HOOKS = ("FORWARD", "INPUT")
_ESTABLISHED = "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"


def run(api: ApiClient) -> None:
    """Forever; an API server that does not answer leaves the rules as they are."""
    applied = ""
    while True:
        world = _look(api)
        if world and (text := _with_established(restore_text(world))) != applied:
            _iptables("iptables-restore", "--noflush", "--wait", input=text)
            for hook in _HOOKS:
                _jump(hook)
            applied = text
        time.sleep(LOOK_SECONDS)


def _with_established(text: str) -> str:
    """Answers to what was allowed are allowed: the first rule of all."""
    first = f"-A {POLICY_CHAIN} {_ESTABLISHED}\n-A "
    return text.replace("\n-A ", f"\n{first}", 1)


def _jump(hook: str) -> None:
    jump = (hook, "-j", POLICY_CHAIN)
    if subprocess.run(["iptables", "--wait", "-C", *jump], capture_output=True).returncode != 0:
        _iptables("iptables", "--wait", "-I", hook, "1", "-j", POLICY_CHAIN)


def _look(api: ApiClient) -> World | None:
    paths = ("/apis/networking.k8s.io/v1/networkpolicies", "/api/v1/pods", "/api/v1/namespaces")
    answers = [api.get(path) for path in paths]
    if any(answer is None for answer in answers):
        return None
    policies, pods, namespaces = (_items(answer) for answer in answers)
    return World(policies, pods, namespaces)


def _items(answer: bytes | None) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(answer or b"{}").get("items") or []
    return items


def _iptables(*command: str, input: str | None = None) -> None:  # noqa: A002 - named as in subprocess.run
    done = subprocess.run(command, input=input, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{' '.join(command)}: {done.stderr.strip()}\n{input or ''}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True, help="address of the API server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--certificates", type=Path, required=True, help="folder of the cluster's certificates")
    options = parser.parse_args()
    run(ApiClient(options.host, options.port, options.certificates))


if __name__ == "__main__":
    main()
