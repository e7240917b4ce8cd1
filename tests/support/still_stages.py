"""Programs of the images that do nothing but stand where a job says: real processes for tests of what must not disturb them.

What one does is written in the job's own spec, as placeholders of its first dataset: `{"merge": "hold"}` stays in the merge
stage until `release`, `{"prepare": "fail"}` finds wrong data, `{"train": "crash"}` ends as no trainer should. The server answers
its probe at once, unless `{"probe": "hold"}` has it wait.
"""

from __future__ import annotations

import stat
import sys
from pathlib import Path

_GO = "go"
_PROGRAM = """#!{python} -IS
import json, os, select, signal, sys

# The first process of a container has no default action for SIGTERM
signal.signal(signal.SIGTERM, lambda *_: os._exit(75))

if sys.argv[1] == "serve":
    import http.server

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

    http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
with open(sys.argv[sys.argv.index("--run") + 1]) as file:
    spec = json.load(file)["spec"]
behaviour = spec["datasets"][0].get("placeholders", {{}}).get(sys.argv[1], "")
if sys.argv[1] == "probe":
    sys.exit(1 if behaviour == "hold" and not os.path.exists({go!r}) else 0)
if behaviour == "crash":
    sys.exit(1)
words = {{"reason": "Succeeded", "message": "", "figures": {{}}}}
if behaviour == "hold":
    print("holds", flush=True)
    while not os.path.exists({go!r}):
        select.select([], [], [], 0.2)
if behaviour == "fail":
    words = {{"reason": "InvalidData", "message": "rows.jsonl:3: messages is empty"}}
with open(os.environ.get("FINETUNE_TERMINATION_LOG", "/dev/termination-log"), "w") as log:
    json.dump(words, log)
sys.exit(65 if behaviour == "fail" else 0)
"""


def install(folder: Path) -> Path:
    """Write the programs into a folder, beside the real operator's. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("finetune-trainer", "finetune-merger", "finetune-server"):
        program = folder / name
        program.write_text(_PROGRAM.format(python=sys.executable, go=str(folder / _GO)))
        program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    operator = "finetune-operator"
    (folder / operator).symlink_to(Path(sys.executable).with_name(operator))
    return folder


def release(folder: Path) -> None:
    """Let every program that holds, and every one that is yet to start, go on."""
    (folder / _GO).touch()
