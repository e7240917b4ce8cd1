"""`python -m finetune_devcluster.node`: runs the process node in the network namespace it is started in, as root."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from ipaddress import IPv4Network
from pathlib import Path

from finetune_devcluster.node import kubeconfig
from finetune_devcluster.node.agent import Agent
from finetune_devcluster.node.api import Api
from finetune_devcluster.node.processes import CommandError
from finetune_devcluster.node.settings import Settings


def parse(arguments: Sequence[str] | None) -> Settings:
    parser = argparse.ArgumentParser(prog="python -m finetune_devcluster.node", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="cluster-admin access to the API server")
    parser.add_argument("--state-dir", type=Path, required=True, help="where pods, volumes and logs are kept")
    parser.add_argument("--node-name", required=True)
    parser.add_argument("--pod-cidr", type=IPv4Network, default=IPv4Network("10.244.0.0/16"))
    parser.add_argument("--service-cidr", type=IPv4Network, default=IPv4Network("10.96.0.0/16"))
    parser.add_argument("--gpus", type=int, default=0, help="how many nvidia.com/gpu the node says it has")
    parser.add_argument("--host-ip", required=True, help="address of the node; the kubelet API is served there")
    parser.add_argument("--path-prefix", type=Path, required=True, help="put at the head of PATH of every container")
    parser.add_argument("--tls-cert", type=Path, required=True, help="serving certificate of the kubelet API")
    parser.add_argument("--tls-key", type=Path, required=True)
    parser.add_argument("--client-ca", type=Path, required=True, help="who may use the kubelet API")
    options = vars(parser.parse_args(arguments))
    paths = {name: value.absolute() for name, value in options.items() if isinstance(value, Path)}
    return Settings(**(options | paths))


async def run(settings: Settings) -> None:
    for folder in (settings.pods_dir, settings.claims_dir):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)  # it holds Secrets and tokens
    async with Api(kubeconfig.load(settings.kubeconfig)) as api:
        running = asyncio.create_task(Agent(settings, api).run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await running


def main(arguments: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    settings = parse(arguments)
    if os.geteuid() != 0:
        sys.exit("process node: it makes namespaces and mounts, so it must be started as root")
    try:
        asyncio.run(run(settings))
    except (kubeconfig.KubeconfigError, CommandError, OSError) as error:
        sys.exit(f"process node: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
