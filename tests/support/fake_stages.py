"""Programs that keep the contract of the images and do nothing else: real processes for tests of what runs them.

What a fake does is written in the job's own spec, as placeholders of its first dataset: `{"train": "fail 65 rows.jsonl:3: bad"}`.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

PROGRAMS = ("finetune-trainer", "finetune-merger")

_SERVER = """#!{python}
import json, os, pathlib, sys

sys.path.insert(0, {support!r})
import tiny_endpoint

option = lambda name: sys.argv[sys.argv.index(name) + 1]
run = json.loads(pathlib.Path(option("--run")).read_text())
root = pathlib.Path(run["root"])
if (root / "broken").exists():
    words = {{"reason": "ModelUnusable", "message": "config.json is missing"}}
    pathlib.Path(os.environ["FINETUNE_TERMINATION_LOG"]).write_text(json.dumps(words))
    sys.exit(66)
(root / "server.pid").write_text(str(os.getpid()))
tiny_endpoint.serve(option("--host"), int(option("--port")))
"""

_PROGRAM = """#!{python}
import json, os, pathlib, signal, sys

from finetune_operator.api.outcome import ExitCode, StageFailure, run_stage
from finetune_operator.api.result import record_stage

stage = sys.argv[1]
run = json.loads(pathlib.Path(sys.argv[sys.argv.index("--run") + 1]).read_text())
root = pathlib.Path(run["root"])
behaviour = run["spec"]["datasets"][0].get("placeholders", {{}}).get(stage, "")
with (root / "started.txt").open("a") as started:
    started.write(stage + "\\n")


def saved_and_gone(number, frame):
    (root / "checkpoint.txt").write_text("saved")
    raise StageFailure(ExitCode.PREEMPTED, "told to stop at step 7; saved")


def work():
    word, _, rest = behaviour.partition(" ")
    if word == "fail":
        code, _, message = rest.partition(" ")
        raise StageFailure(ExitCode(int(code)), message)
    if word == "crash":
        print("Segmentation fault, says nobody", flush=True)
        os._exit(int(rest))
    if word == "kill-self":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "hang" and not (root / "checkpoint.txt").exists():
        signal.signal(signal.SIGTERM, saved_and_gone)
        (root / "hangs.new").write_text(str(os.getpid()))
        (root / "hangs.new").rename(root / "hangs")
        print("step 7/10  loss 1.5", flush=True)
        signal.pause()
    if word == "orphan":
        orphan = os.fork()
        if orphan == 0:
            signal.pause()
        (root / "orphan.pid").write_text(str(orphan))
    print(f"{{stage}} works", flush=True)
    figures = {{"steps": 10}}
    record_stage(root / "result.json", stage, figures)
    return figures


sys.exit(run_stage(work))
"""


def install_fakes(folder: Path) -> Path:
    """Write the programs into a folder and return the interpreter beside which they lie."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        _install(folder / name, _PROGRAM.format(python=sys.executable))
    _install(folder / "finetune-server", _SERVER.format(python=sys.executable, support=str(Path(__file__).parent)))
    return folder / "python"


def _install(program: Path, text: str) -> None:
    program.write_text(text)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
