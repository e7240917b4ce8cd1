"""The programs of the control plane, built once from their published Go modules.

They land in `${XDG_CACHE_HOME:-~/.cache}/finetune-operator/bin/<hash>/`. The hash covers all that decides
what is built, so that a change of a version builds anew and going back finds the old build.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finetune_devcluster import toolchain
from finetune_devcluster.errors import DevclusterError
from finetune_devcluster.layout import project_root
from finetune_devcluster.locks import exclusive
from finetune_devcluster.progress import say


@dataclass(frozen=True)
class Tool:
    """A program, the Go package it is built from, and how long that takes on 2 cores with cold caches."""

    name: str
    package: str
    duration: str


# kube-apiserver compiles most of what the other Kubernetes programs share: it goes first and takes longest.
TOOLS = (
    Tool("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", "about 5 minutes"),
    Tool("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", "about 2 minutes"),
    Tool("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", "less than a minute"),
    Tool("kubectl", "k8s.io/kubernetes/cmd/kubectl", "about a minute"),
    Tool("etcd", "go.etcd.io/etcd/server/v3", "about a minute"),
    Tool("helm", "helm.sh/helm/v4/cmd/helm", "about a minute"),
)

# What a real node has besides its container runtime, from a go.mod of its own: whoever needs no real node builds none of it.
NODE_TOOLS = (
    Tool("kubelet", "k8s.io/kubernetes/cmd/kubelet", "about 3 minutes"),
    Tool("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy", "less than a minute"),
    Tool("coredns", "./coredns", "about a minute"),
    Tool("pause", "./pause", "seconds"),
    Tool("device-plugin", "./device-plugin", "seconds"),
)

_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def module_folder() -> Path:
    """The Go module whose go.mod and go.sum pin the versions."""
    return project_root() / "devcluster" / "binaries"


def node_module_folder() -> Path:
    """The Go module of the real node's programs."""
    return project_root() / "devcluster" / "node-binaries"


def cache_folder() -> Path:
    configured = os.environ.get("XDG_CACHE_HOME")
    return (Path(configured) if configured else Path.home() / ".cache") / "finetune-operator"


def go_target() -> str:
    """`linux/amd64` or `linux/arm64`."""
    machine = platform.machine()
    if platform.system() != "Linux" or machine not in _GO_ARCHITECTURES:
        raise DevclusterError(
            f"found {platform.system()} on {machine}; the devcluster runs on Linux, on x86_64 or aarch64"
        )
    return f"linux/{_GO_ARCHITECTURES[machine]}"


def linker_flags(go_mod: str) -> str:
    """Strip symbols, and stamp the version that clients ask `/version` for."""
    match = re.search(r"^(?:require|)\s*k8s\.io/kubernetes (v(\d+)\.(\d+)\.\S+)", go_mod, re.MULTILINE)
    if not match:
        raise DevclusterError("go.mod: found no requirement of k8s.io/kubernetes, expected one")
    version, major, minor = match.groups()
    stamped = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return "-s -w " + " ".join(f"-X k8s.io/component-base/version.{k}={v}" for k, v in stamped.items())


def cache_key(module: Path, target: str) -> str:
    """Changes with every file and setting that decides what is built."""
    go_mod = (module / "go.mod").read_text()
    parts = [go_mod, (module / "go.sum").read_text(), target, linker_flags(go_mod)]
    parts += [file.read_text() for file in sorted(module.rglob("*.go"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def ensure_node() -> Path:
    """The folder that holds the programs of a real node."""
    return ensure(NODE_TOOLS, node_module_folder())


def ensure(tools: tuple[Tool, ...] = TOOLS, module: Path | None = None) -> Path:
    """The folder that holds all of `tools`; builds what is missing and not in `$KUBEBUILDER_ASSETS`."""
    module, target, cache = module or module_folder(), go_target(), cache_folder()
    folder = cache / "bin" / cache_key(module, target)
    assets = provided(os.environ.get("KUBEBUILDER_ASSETS"), tools)
    if not assets and all((folder / tool.name).exists() for tool in tools):
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    # Two that start at once build once: the second waits and then finds all there.
    with exclusive(cache / "lock", "building the cluster's programs"):
        missing = [t for t in tools if t.name not in assets and not (folder / t.name).exists()]
        if missing:
            _build_all(missing, module, folder, toolchain.ensure_go(_required_go(module), cache))
        return _linked(folder, assets, tools) if assets else folder


def provided(assets: str | None, tools: tuple[Tool, ...]) -> Mapping[str, Path]:
    """The programs that the folder `assets` holds, by name."""
    if not assets:
        return {}
    candidates = {tool.name: Path(assets).absolute() / tool.name for tool in tools}
    return {name: file for name, file in candidates.items() if os.access(file, os.X_OK)}


def _required_go(module: Path) -> toolchain.Version:
    return toolchain.required_version((module / "go.mod").read_text())


def _build_all(tools: list[Tool], module: Path, folder: Path, go: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for abandoned in folder.parent.glob(f"{folder.name}.partial-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    # Not one name for all: the compiler of a killed build may still be about to write into its own.
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    partial.mkdir()
    for number, tool in enumerate(tools, 1):
        say(f"building {tool.name} ({number} of {len(tools)}), {tool.duration} the first time")
        _build(tool, module, partial, go)
        (partial / tool.name).rename(folder / tool.name)
    partial.rmdir()


def _build(tool: Tool, module: Path, output: Path, go: Path) -> None:
    flags = linker_flags((module / "go.mod").read_text())
    command = [str(go), "build", "-trimpath", "-ldflags", flags, "-o", str(output / tool.name), tool.package]
    # A killed build must not go on compiling for minutes.
    command = ["setpriv", "--pdeathsig", "KILL", *command]
    # GOWORK and GOFLAGS of the user's own Go projects would change the build.
    settings = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=readonly"}
    done = subprocess.run(command, cwd=module, env=os.environ | settings, capture_output=True, text=True)
    if done.returncode != 0:
        raise DevclusterError(f"`{' '.join(command)}` in {module} failed:\n{done.stderr.strip()}")


def _linked(built: Path, assets: Mapping[str, Path], tools: tuple[Tool, ...]) -> Path:
    """A folder of links to the provided programs and, for the rest, to the built ones."""
    digest = hashlib.sha256("\0".join(f"{file}" for file in assets.values()).encode()).hexdigest()[:8]
    folder = built.with_name(f"{built.name}-{digest}")
    folder.mkdir(parents=True, exist_ok=True)
    for tool in tools:
        link, program = folder / tool.name, assets.get(tool.name, built / tool.name)
        if not link.is_symlink() or link.readlink() != program:
            link.unlink(missing_ok=True)
            link.symlink_to(program)
    return folder
