"""Start one daemon and leave at once: `python launch.py LOCK PID_FILE LOG_FILE PROGRAM ARGUMENT...`

Runs as a program of its own, on the standard library only. The daemon itself records its identity before it
becomes PROGRAM: whoever kills `devcluster up` at any moment, no component runs without its pid file. LOCK is a file
descriptor that is held open until then.
"""

import json
import os
import sys
from pathlib import Path


def start_ticks(stat: str) -> int:
    """Field 22 of /proc/PID/stat (proc_pid_stat(5)): start time in clock ticks after boot.

    The second field is the command's name and may hold spaces and parentheses: count from its end.
    """
    return int(stat.rpartition(")")[2].split()[19])


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _record_identity(pid_file: Path) -> None:
    identity = {
        "pid": os.getpid(),
        "start_ticks": start_ticks(Path("/proc/self/stat").read_text()),
        "boot_id": boot_id(),
    }
    partial = pid_file.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(identity))
    partial.rename(pid_file)


def _become(pid_file: Path, log_file: Path, program: list[str]) -> None:
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    _record_identity(pid_file)
    try:
        os.execvp(program[0], program)  # noqa: S606 - no shell is wanted
    except OSError as error:
        print(f"cannot start {program[0]}: {error}", file=sys.stderr, flush=True)
        os._exit(127)


def main() -> None:
    lock, pid_file, log_file, *program = sys.argv[1:]
    os.set_inheritable(int(lock), False)
    os.setsid()
    # Python opens pipes close-on-exec: the end of file comes when the daemon has become PROGRAM, or has died.
    started, starting = os.pipe()
    if os.fork() == 0:
        _become(Path(pid_file), Path(log_file), program)
    os.close(starting)
    os.read(started, 1)


if __name__ == "__main__":
    main()
