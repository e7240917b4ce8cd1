"""Starts one container: makes its namespaces, builds its root file system, and becomes its main process.

A script of its own on the standard library only, started with `python -I -S` by `container_process`. It reads
one JSON object (see `launch_spec`) from standard input and reports on the file descriptor given as its only
argument, one JSON object a line: {"pid": PID of the container's main process on the host} when everything is in
place and the command is about to be executed, {"error": TEXT} when it can not be. The process that was started
stays behind outside the namespaces and ends as the main process ends: with its exit code, or 128 + its signal.

The root is a tmpfs that holds bind mounts of the host's top-level directories. Where a mount point has to be
made inside a directory of the host, that directory is shadowed by a tmpfs that binds each of its entries, so
that nothing is ever written to the host.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import stat
import sys
from collections import deque
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x4000000, 0x8000000, 0x20000000
PR_SET_PDEATHSIG = 1

# A directory that every Linux host has and that no container sees, so that binding the rest of the host's root
# below it can not bind it into itself.
STAGING = "/dev/shm"  # noqa: S108
FRESH = ("dev", "proc", "run", "tmp")
SHARED_MEMORY = "/dev/shm"  # noqa: S108
DEVICES = ("full", "null", "ptmx", "pts", "random", "tty", "urandom", "zero")
DEVICE_PREFIXES = ("dri", "infiniband", "nvidia")
DEVICE_LINKS = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}
MAX_LINKS = 40

libc = ctypes.CDLL(None, use_errno=True)


class LaunchError(Exception):
    """The container can not be started as its spec says."""


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    if libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]) != 0:
        number = ctypes.get_errno()
        raise LaunchError(f"mounting {source} on {target}: {os.strerror(number)}")


def bind(source: str, target: str, read_only: bool = False) -> None:
    mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        mount("none", target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


class Root:
    """The container's root file system while it is built; paths are those that the container will see."""

    def __init__(self, staging: str) -> None:
        self._staging = staging
        # Mounted here, and where its entries are found on the host; None: ours to make new entries in.
        self._sources: dict[str, str | None] = {"/": None}

    def real(self, path: str) -> str:
        return self._staging + path

    def tmpfs(self, path: str, mode: str) -> None:
        mount("tmpfs", self.real(path), "tmpfs", MS_NOSUID, f"mode={mode}")
        self._sources[path] = None

    def mirror(self, source: str, path: str) -> None:
        """Makes one entry of the host appear at `path`, whose parent directory is ours; empty if it has gone meanwhile."""
        try:
            self._mirror(source, path)
        except (LaunchError, FileNotFoundError):
            if os.path.lexists(source):
                raise

    def _mirror(self, source: str, path: str) -> None:
        real = self.real(path)
        if os.path.islink(source):
            os.symlink(os.readlink(source), real)
        elif os.path.isdir(source):
            os.mkdir(real)
            bind(source, real)
            self._sources[path] = source
        elif os.path.exists(source):
            touch(real)
            bind(source, real)

    def attach(self, source: str, target: str, read_only: bool) -> None:
        """Binds `source` at `target`, making the mount point where there is none."""
        path = self.make(target, directory=os.path.isdir(source))
        bind(source, self.real(path), read_only)
        self._sources[path] = source if read_only else None

    def make(self, target: str, directory: bool) -> str:
        """Makes sure that `target` exists; returns its path with all symbolic links followed inside the root."""
        parts, here, links = deque(target.split("/")), "/", 0
        while parts:
            name = parts.popleft()
            if name in ("", "."):
                continue
            if name == "..":
                here = os.path.dirname(here)
                continue
            path = os.path.join(here, name)
            if os.path.islink(self.real(path)):
                links += 1
                if links > MAX_LINKS:
                    raise LaunchError(f"{target}: too many symbolic links")
                link = os.readlink(self.real(path))
                here = "/" if link.startswith("/") else here
                parts.extendleft(reversed(link.split("/")))
                continue
            if not os.path.lexists(self.real(path)):
                self._make_entry(here, path, directory or bool(parts))
            here = path
        return here

    def _make_entry(self, parent: str, path: str, directory: bool) -> None:
        source = self._source(parent)
        if source is not None:
            self._shadow(parent, source)
        if directory:
            os.mkdir(self.real(path), 0o755)
        else:
            touch(self.real(path))

    def _source(self, path: str) -> str | None:
        top = path
        while top not in self._sources:
            top = os.path.dirname(top)
        source = self._sources[top]
        return None if source is None else os.path.normpath(source + path[len(top) :])

    def _shadow(self, path: str, source: str) -> None:
        mode = stat.S_IMODE(os.stat(source).st_mode)
        self.tmpfs(path, f"{mode:o}")
        for name in sorted(os.listdir(source)):
            self.mirror(os.path.join(source, name), os.path.join(path, name))


def touch(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))


def build_root(mounts: list[dict[str, Any]]) -> Root:
    mount("tmpfs", STAGING, "tmpfs", MS_NOSUID, "mode=755")
    root = Root(STAGING)
    for name in sorted(os.listdir("/")):
        if name not in FRESH:
            root.mirror(f"/{name}", f"/{name}")
    for name in FRESH:
        os.mkdir(root.real(f"/{name}"))
    mount("proc", root.real("/proc"), "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    root.tmpfs("/tmp", "1777")  # noqa: S108
    root.tmpfs("/run", "755")
    build_devices(root)
    for entry in mounts:
        source = sub_path(entry["source"], entry["subPath"]) if entry["subPath"] else entry["source"]
        root.attach(source, entry["target"], entry["readOnly"])
    return root


def build_devices(root: Root) -> None:
    root.tmpfs("/dev", "755")
    for name in sorted(os.listdir("/dev")):
        if name in DEVICES or name.startswith(DEVICE_PREFIXES):
            root.mirror(f"/dev/{name}", f"/dev/{name}")
    for name, descriptor in DEVICE_LINKS.items():
        os.symlink(f"/proc/self/fd{descriptor}", root.real(f"/dev/{name}"))
    os.mkdir(root.real(SHARED_MEMORY))
    root.tmpfs(SHARED_MEMORY, "1777")


def sub_path(volume: str, relative: str) -> str:
    """The entry `relative` of the volume, made as a directory if missing; it may not lead out of the volume."""
    path = os.path.realpath(os.path.join(volume, relative))
    if os.path.commonpath([path, os.path.realpath(volume)]) != os.path.realpath(volume):
        raise LaunchError(f"subPath {relative!r} leads out of its volume")
    if not os.path.lexists(path):
        os.makedirs(path, 0o755)
    return path


def enter(root: Root) -> None:
    os.chdir(root.real("/"))
    if libc.pivot_root(b".", b".") != 0:
        raise LaunchError(f"pivot_root: {os.strerror(ctypes.get_errno())}")
    # Both roots are now stacked at "."; the old one is on top.
    if libc.umount2(b".", MNT_DETACH) != 0:
        raise LaunchError(f"unmounting the host's root: {os.strerror(ctypes.get_errno())}")
    os.chdir("/")


def find_command(name: str, path: str) -> str:
    folders = [""] if "/" in name else [folder or "." for folder in path.split(":")]
    candidates = [os.path.join(folder, name) for folder in folders]
    existing = [candidate for candidate in candidates if os.path.isfile(candidate)]
    for candidate in existing:
        if os.access(candidate, os.X_OK):
            return candidate
    if existing:
        raise LaunchError(f'exec: "{name}": permission denied')
    if "/" in name:
        raise LaunchError(f'exec: "{name}": stat {name}: no such file or directory')
    raise LaunchError(f'exec: "{name}": executable file not found in $PATH')


def reset_signals() -> None:
    # Python ignores SIGPIPE, and an ignored signal stays ignored in the program that is executed.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except OSError:  # real-time signals that the C library keeps for itself
            continue
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def launch(spec: dict[str, Any], report: int) -> None:
    host_pid = int(os.readlink("/proc/self"))  # the host's /proc: it still numbers processes as the host does
    root = build_root(spec["mounts"])
    directory = root.make(spec["workingDir"], directory=True)
    enter(root)
    socket.sethostname(spec["hostname"])
    os.chdir(directory)
    os.umask(0o022)
    command = find_command(spec["argv"][0], spec["env"].get("PATH", ""))
    os.setsid()
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    reset_signals()
    send(report, {"pid": host_pid})
    try:
        os.execve(command, spec["argv"], spec["env"])  # noqa: S606
    except OSError as error:  # for example a script without its interpreter's line
        sys.exit(f"exec {command}: {error}")


def keep_watch(child: int) -> None:
    """Waits for the main process and ends as it ended, holding none of its files open meanwhile."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(128 - code if code < 0 else code)


def unshare() -> None:
    # util-linux's unshare can not say that its child was killed by SIGKILL: it reports exit code 1 for that.
    if libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID) != 0:
        raise LaunchError(f"unshare: {os.strerror(ctypes.get_errno())}")
    mount("none", "/", None, MS_REC | MS_PRIVATE)


def send(report: int, message: dict[str, Any]) -> None:
    os.write(report, json.dumps(message).encode() + b"\n")


def main() -> None:
    report = int(sys.argv[1])
    os.set_inheritable(report, False)
    try:
        spec = json.load(sys.stdin)
        unshare()
        if child := os.fork():
            os.close(report)
            keep_watch(child)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        launch(spec, report)
    except (LaunchError, OSError) as error:
        send(report, {"error": str(error)})
        sys.exit(128)


if __name__ == "__main__":
    main()
