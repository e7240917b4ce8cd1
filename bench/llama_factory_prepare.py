"""LLaMA-Factory's own preprocessing on prepare.py's rows, by the calls that its training begins with; started by prepare.py."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from effort import measured


def main() -> None:
    """Load, tokenise and pack the rows; print one RESULT line."""
    asked = json.loads(sys.argv[1])
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_DATASETS_CACHE=str(Path(asked["made"]) / "cache"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    def load() -> Any:
        model, data, training, _, _ = get_train_args(_arguments(asked))
        loaded = load_tokenizer(model)
        template = get_template_and_fix_tokenizer(loaded["tokenizer"], data)
        return get_dataset(template, model, data, training, stage="sft", **loaded)["train_dataset"]

    rows, effort = measured(load)
    found = {**effort, "tokens": _tokens(rows), "sequences": len(rows)}
    print("RESULT " + json.dumps(found), flush=True)


def _arguments(asked: dict[str, Any]) -> dict[str, Any]:
    folder = Path(asked["folder"])
    return {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(folder / "model"),
        "finetuning_type": "lora",
        "dataset": "rows",
        "dataset_dir": str(folder / "data"),
        "template": "qwen",
        "cutoff_len": asked["cutoff"],
        "neat_packing": True,
        "preprocessing_num_workers": asked["workers"],
        "output_dir": str(Path(asked["made"]) / "out"),
        "use_cpu": True,
        "report_to": "none",
    }


def _tokens(rows: Any) -> int:
    """Those that are no padding: the attention mask numbers a sequence's conversations from 1."""
    import pyarrow.compute

    mask = pyarrow.compute.list_flatten(rows.with_format("arrow")["attention_mask"].combine_chunks())
    return int(pyarrow.compute.sum(pyarrow.compute.not_equal(mask, 0)).as_py())


if __name__ == "__main__":
    main()
