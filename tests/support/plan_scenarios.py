"""Lives of jobs, well and ill, for the simulation."""

from __future__ import annotations

from typing import Any

from plan_simulation import Cluster, run_to_rest

SERVED = {"serving": {"gpus": 0}}
TWO_NODES = {
    "resources": {"nodes": 2, "gpusPerNode": 1},
    "storage": {"accessMode": "ReadWriteMany"},
}

SCENARIOS: dict[str, dict[str, Any]] = {
    "everything succeeds and is served": {"spec": SERVED},
    "nothing is served": {"spec": {}},
    "a full fine-tune has no merge": {"spec": {"method": "Full", **SERVED}},
    "training is pre-empted, then lost, then succeeds": {
        "spec": SERVED,
        "exit_codes": {"qwen-train-0": [75], "qwen-train-1": [137]},
    },
    "two nodes lose an attempt": {"spec": TWO_NODES, "exit_codes": {"qwen-train-0": [1]}},
    "prepare finds wrong data": {"spec": SERVED, "exit_codes": {"qwen-prepare": [65]}},
    "training runs out of memory": {"spec": SERVED, "exit_codes": {"qwen-train-0": [71]}},
    "training fails until its retries are used up": {
        "spec": {"maxRetries": 1},
        "exit_codes": {"qwen-train-0": [1], "qwen-train-1": [1]},
    },
    "the merged model has lost parity": {"spec": SERVED, "exit_codes": {"qwen-merge": [68]}},
    "serving is switched off, on and to the adapter": {
        "spec": SERVED,
        "edits": [
            {"serving": {"gpus": 0, "enabled": False}},
            {"serving": {"gpus": 0}},
            {"serving": {"gpus": 0, "mode": "Adapter", "replicas": 2}},
        ],
    },
    "Jobs are deleted after their time": {"spec": {"ttlSecondsAfterFinished": 60, **SERVED}},
    "it is created suspended": {"spec": {"suspend": True, **SERVED}, "edits": [{"suspend": False}]},
    "training is suspended and resumed": {
        "spec": SERVED,
        "edits": [{"suspend": True}, {"suspend": False}, {"ttlSecondsAfterFinished": 1}],
        "endless": {"qwen-train-0"},
    },
    "training in a queue is suspended and resumed": {
        "spec": {"resources": {"queue": "gpus"}, **SERVED},
        "edits": [{"suspend": True}, {"suspend": False}, {"ttlSecondsAfterFinished": 1}],
        "endless": {"qwen-train-0"},
    },
    "serving is suspended and resumed": {"spec": SERVED, "edits": [{"suspend": True}, {"suspend": False}]},
}


def a_run(scenario: str, *, killed_after: int | None = None, act_before_restart: bool = False) -> Cluster:
    script = SCENARIOS[scenario]
    cluster = Cluster(
        spec=dict(script["spec"]),
        exit_codes=dict(script.get("exit_codes", {})),
        edits=list(script.get("edits", [])),
        endless=set(script.get("endless", ())),
        writes_left=killed_after,
    )
    return run_to_rest(cluster, act_before_restart=act_before_restart)
