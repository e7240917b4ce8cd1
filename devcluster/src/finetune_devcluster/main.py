"""The command `devcluster`."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from finetune_devcluster import binaries, host, network, operator_chart
from finetune_devcluster.cluster import Cluster
from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.progress import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    own, passed_on = split_arguments(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(own, argparse.Namespace(name="default", passed_on=passed_on))
    try:
        status: int = options.run(options)
        return status
    except DevclusterError as error:
        say(f"devcluster: {error}")
        return 1
    except KeyboardInterrupt:
        say(f"devcluster: interrupted; `devcluster down --name {options.name}` removes what was started")
        return 130


def split_arguments(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Our own arguments, and those that `kubectl` and `exec` pass on untouched.

    argparse.REMAINDER would take `-n` in `devcluster kubectl -n kube-system get pods` for one of ours.
    """
    if not arguments or arguments[0] not in ("kubectl", "exec"):
        return arguments, []
    end = 1
    if len(arguments) > 1 and arguments[1] in ("--name", "-h", "--help"):
        end = 3 if arguments[1] == "--name" else 2
    elif len(arguments) > 1 and arguments[1].startswith("--name="):
        end = 2
    if arguments[end : end + 1] == ["--"]:
        return arguments[:end], arguments[end + 1 :]
    return arguments[:end], arguments[end:]


def _up(options: argparse.Namespace) -> int:
    cluster = Cluster(options.name, node=options.node, kubelet=options.kubelet, gpus=options.gpus).up()
    if options.operator:
        operator_chart.install(cluster)
    print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
    return 0


def _down(options: argparse.Namespace) -> int:
    Cluster(options.name).down(keep_state=options.keep_state)
    return 0


def _status(options: argparse.Namespace) -> int:
    """Exit status 0 only when every component that was started still runs."""
    states = Cluster(options.name).status()
    if not states:
        say(f"devcluster: no cluster named {options.name}; `devcluster up --name {options.name}` starts one")
        return 1
    for state in states:
        condition, pid = ("up", str(state.pid)) if state.pid else ("down", "-")
        print(f"{state.name:<24} {condition:<5} {pid:>8}  {state.address:<26} {state.log}")
    return 0 if all(state.pid for state in states) else 1


def _kubectl(options: argparse.Namespace) -> int:
    environment = Cluster(options.name).client_environment()
    program = str(binaries.ensure() / "kubectl")
    os.execve(program, [program, *options.passed_on], environment)  # noqa: S606 - no shell is wanted


def _exec(options: argparse.Namespace) -> int:
    host.require_root()
    if not options.passed_on:
        raise DevclusterError("exec: found no command; use `devcluster exec -- COMMAND ARGUMENT...`")
    cluster = Cluster(options.name)
    environment = cluster.client_environment()
    command = network.inside(cluster.namespace, *options.passed_on)
    os.execvpe(command[0], command, environment)  # noqa: S606 - no shell is wanted


def _binaries(options: argparse.Namespace) -> int:
    print(binaries.ensure_node() if options.node else binaries.ensure())
    return 0


def _node_packages(options: argparse.Namespace) -> int:
    print(" ".join(host.missing_node_packages()))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="devcluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default="default", help="which cluster (default: %(default)s)")

    up = commands.add_parser("up", parents=[named], help="start a cluster")
    up.add_argument("--no-node", dest="node", action="store_false", help="the control plane alone: no pod runs")
    up.add_argument("--kubelet", action="store_true", help="a real node: kubelet, containerd, kube-proxy and CoreDNS")
    up.add_argument("--gpus", type=int, default=0, help="GPUs that the node offers (default: %(default)s)")
    up.add_argument("--operator", action="store_true", help="install the operator's chart from this checkout")
    up.set_defaults(run=_up)

    down = commands.add_parser("down", parents=[named], help="end a cluster and remove all that it left")
    down.add_argument("--keep-state", action="store_true", help="keep its folder: logs, data, certificates")
    down.set_defaults(run=_down)

    status = commands.add_parser("status", parents=[named], help="show each component")
    status.set_defaults(run=_status)

    kubectl = commands.add_parser(
        "kubectl",
        parents=[named],
        help="run kubectl as the administrator",
        usage="%(prog)s [--name NAME] [--] ARGUMENT...",
    )
    kubectl.set_defaults(run=_kubectl)

    inside = commands.add_parser(
        "exec",
        parents=[named],
        help="run a command in the cluster's network namespace",
        usage="%(prog)s [--name NAME] [--] COMMAND ARGUMENT...",
    )
    inside.set_defaults(run=_exec)

    programs = commands.add_parser("binaries", help="build what is missing; print the folder of the programs")
    programs.add_argument("--node", action="store_true", help="those of a real node instead: kubelet, kube-proxy, …")
    programs.set_defaults(run=_binaries)

    packages = commands.add_parser("node-packages", help="print the Debian packages that a real node lacks here")
    packages.set_defaults(run=_node_packages)
    return parser


if __name__ == "__main__":
    sys.exit(main())
