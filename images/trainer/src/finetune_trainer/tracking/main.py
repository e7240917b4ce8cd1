"""Entry point of a tracker's process: `python -m finetune_trainer.tracking.main NAME`, run.json on standard input.

The first line of standard input is run.json; the second, at the end, says how the training ended. End of file without
it means that the trainer was killed. The process outlives the trainer by `SECONDS_TO_END` at most.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from finetune_operator.api.result import write_whole
from finetune_operator.api.run import RunConfig
from finetune_operator.api.tracking import Tracking
from finetune_trainer.tracking.follow import Ending, LogReader, follow
from finetune_trainer.tracking.start import MLFLOW, SECONDS_TO_END, WANDB, address_file
from finetune_trainer.tracking.tracker import Tracker

KEYS = ("WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN")


def main() -> None:
    """Report one run to one tracker; exit code 1 where not everything could be sent."""
    name = sys.argv[1]
    # Signals are for the trainer, which tells how it ended.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    run = RunConfig.model_validate_json(sys.stdin.readline(), by_alias=True, by_name=False)
    ending = Ending()
    threading.Thread(target=_await_end, args=(ending,), daemon=True).start()

    def say(text: str) -> None:
        print(f"{name}: {_without_keys(text)}", flush=True)

    def opened(address: str) -> None:
        say(f"the run is at {address}")
        write_whole(address_file(run, name), address.encode())

    trouble = follow(_tracker(run, name), LogReader(run.paths.trainer_log), ending, opened, say)
    if trouble:
        say(f"not everything could be reported ({trouble}); trainer_log.jsonl has all figures")
    # Not by way of the interpreter's end, where a client may wait for its server once more.
    sys.stdout.flush()
    os._exit(1 if trouble else 0)


def _await_end(ending: Ending) -> None:
    word = sys.stdin.readline().strip()
    # Whatever hangs then, it ends: no handler is set, so the alarm kills.
    signal.alarm(SECONDS_TO_END)
    ending.tell(word)


def _tracker(run: RunConfig, name: str) -> Tracker:
    """Each with its own imports, which take seconds."""
    asked = run.spec.tracking or Tracking()
    if name == WANDB and asked.wandb is not None:
        from finetune_trainer.tracking.weights_and_biases import WeightsAndBiasesRun

        return WeightsAndBiasesRun(run, asked.wandb)
    if name == MLFLOW and asked.mlflow is not None:
        from finetune_trainer.tracking.mlflow_server import MLflowRun

        return MLflowRun(run, asked.mlflow)
    from finetune_trainer.tracking.event_files import EventFiles

    return EventFiles(run)


def _without_keys(text: str) -> str:
    for variable in KEYS:
        if key := os.environ.get(variable):
            text = text.replace(key, "…")
    return text


if __name__ == "__main__":
    main()
