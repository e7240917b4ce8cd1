"""The process node's bridge, in a network namespace of the test's own."""

import os
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and util-linux for namespaces"
)

PROGRAM = """
import asyncio, pathlib, subprocess
from ipaddress import IPv4Network
from finetune_devcluster.node.network import BRIDGE, Network

async def main():
    network = Network(IPv4Network("10.244.0.0/24"), IPv4Network("10.96.0.0/16"))
    await network.prepare()
    address = pathlib.Path(f"/sys/class/net/{BRIDGE}/address")
    seen = {address.read_text()}
    # Where the bridge took the lowest address of its pods, one of several would change it
    for pod in range(8):
        sandbox = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo ready; exec sleep 60"], stdout=subprocess.PIPE)
        sandbox.stdout.readline()
        await network.connect(f"pod-{pod}", sandbox.pid, f"10.244.0.{pod + 2}")
        seen.add(address.read_text())
        if pod % 2:
            await network.disconnect(f"pod-{pod}")
            seen.add(address.read_text())
        sandbox.kill()
        sandbox.wait()
    print(len(seen))

asyncio.run(main())
"""


def test_the_bridge_keeps_its_hardware_address_while_pods_come_and_go() -> None:
    # A sysfs of the namespace's own, which shows its links
    command = ["unshare", "--net", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys && exec "$@"', "sh"]
    done = subprocess.run([*command, sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr
