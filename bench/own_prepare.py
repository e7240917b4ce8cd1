"""This project's prepare stage on prepare.py's rows; started by it."""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effort import measured


def main() -> None:
    """Prepare as `finetune-trainer prepare` does; print one RESULT line."""
    asked = json.loads(sys.argv[1])
    from finetune_operator.api.run import RunConfig
    from finetune_trainer.prepare.stage import prepare

    folder = Path(asked["folder"])
    spec: dict[str, Any] = {
        "model": {"source": f"file://{folder}/model"},
        "datasets": [{"source": f"file://{folder}/data/rows.jsonl"}],
        "method": "LoRA",
        "tokenization": {"template": "qwen", "cutoffLen": asked["cutoff"], "packing": "Segmented"},
        "resources": {"gpusPerNode": 0},
    }
    run = RunConfig.model_validate({"name": "bench", "uid": "bench", "root": asked["made"], "spec": spec})

    def prepared() -> Mapping[str, Any]:
        figures = prepare(run)
        # Its processes end by themselves; only then is their time counted.
        for child in multiprocessing.active_children():
            child.join()
        return figures

    figures, effort = measured(prepared)
    found = {
        **effort,
        "tokens": figures["tokens"],
        "sequences": json.loads(run.paths.report.read_bytes())["sequences"],
    }
    print("RESULT " + json.dumps(found), flush=True)


# Workers are spawned, and import this file again.
if __name__ == "__main__":
    main()
