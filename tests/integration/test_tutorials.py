"""Both tutorials from their own files: converted, run on tiny models of the same architectures, merged, and asked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoTokenizer

from tiny_models import load, save_base

TUTORIALS = Path(__file__).parents[1] / "unit" / "data" / "tutorials"
IDENTITY = Path(__file__).parents[2] / "examples" / "data" / "identity.json"
SYSTEM, QUESTION = "You are a helpful assistant.", "Give me a short introduction to large language model."
TOKENS = 12
# The files as they are, but for models that are here and fewer, larger steps.
CHANGES = {
    "model_name_or_path: Qwen/Qwen2-7B-Instruct": "model_name_or_path: ./Qwen2-7B-Instruct",
    "gradient_accumulation_steps: .*": "gradient_accumulation_steps: 4",
    "learning_rate: .*": "learning_rate: 1.0e-2",
    "num_train_epochs: .*": "num_train_epochs: 1",
    "logging_steps: .*": "logging_steps: 1",
    "max_samples: .*": "max_samples: 20",
}
JOBS = ["qwen2-7b-full-sft", "qwen2-7b-lora-sft", "qwen2-7b-qlora-sft", "yi-lora-sft-bitsandbytes"]
"""The four training files' jobs; the export file merges the second, the chat file has the last one's adapter served."""
Finished = subprocess.CompletedProcess[str]


def finetune(folder: Path, *words: str, question: str | None = None) -> Finished:
    done = subprocess.run(
        [Path(sys.executable).with_name("finetune"), *words],
        cwd=folder,
        input=question,
        capture_output=True,
        text=True,
        timeout=1500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return done


def write_tutorials(folder: Path) -> None:
    """What a reader of the tutorials has in the folder, and the two models."""
    for path in TUTORIALS.glob("*.yaml"):
        text = path.read_text()
        for old, new in CHANGES.items():
            text = re.sub(f"(?m)^{old}$", new, text)
        (folder / path.name).write_text(text)
    data = folder / "data"
    data.mkdir()
    shutil.copy(TUTORIALS / "dataset_info.json", data)
    shutil.copy(IDENTITY, data)
    row = (TUTORIALS / "qwen_train_data.jsonl").read_text()
    (data / "qwen_train_data.jsonl").write_text("".join(row.replace("something", f"{n} things") for n in range(20)))
    # 4-bit weights come in blocks of 64.
    save_base(folder / "Qwen2-7B-Instruct", "qwen2", hidden_size=64, intermediate_size=128)
    # Its folder lies beside the working directory, as the second tutorial has it.
    save_base(folder.parent / "Yi-1.5-6B-Chat", "llama", hidden_size=64, intermediate_size=128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory after all six files were converted in one call, and what came of them was run."""
    folder = tmp_path_factory.mktemp("tutorials") / "work"
    folder.mkdir()
    write_tutorials(folder)
    files = sorted(path.name for path in folder.glob("*.yaml"))
    placeholders = ["--placeholder", "name=Iris", "--placeholder", "author=Meadow"]
    (folder / "jobs.yaml").write_text(finetune(folder, "convert", *files, *placeholders, "--quiet").stdout)
    (folder / "outcomes.json").write_text(finetune(folder, "run", "jobs.yaml", "-o", "json").stdout)
    return folder


def test_the_six_files_train_plot_and_merge(folder: Path) -> None:
    outcomes = json.loads((folder / "outcomes.json").read_text())
    assert [outcome["job"] for outcome in outcomes] == JOBS
    merged = [outcome["job"] for outcome in outcomes if "merge" in outcome["stages"]]
    assert merged == ["qwen2-7b-lora-sft", "qwen2-7b-qlora-sft"]
    for job in JOBS:
        run = folder / "finetune-runs" / job
        log = [json.loads(line) for line in (run / "trainer_log.jsonl").read_text().splitlines()]
        losses = [line["loss"] for line in log if "loss" in line]
        assert losses[-1] < losses[0]
        assert any("eval_loss" in line for line in log)
        assert (run / "training_loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_exported_model_answers_as_the_tutorials_inference_script_has_it_answer(folder: Path) -> None:
    run = "finetune-runs/qwen2-7b-lora-sft"
    words = ["--system", SYSTEM, "-m", QUESTION, "--max-tokens", str(TOKENS), "-o", "json"]
    chat = json.loads(finetune(folder, "chat", run, *words).stdout)
    merged = folder / run / "merged"
    assert chat["messages"][-1]["content"].strip() == answer(load(merged), merged, SYSTEM, QUESTION).strip()


def test_the_adapter_answers_unmerged_as_the_chat_file_has_it(folder: Path) -> None:
    run = folder / "finetune-runs" / "yi-lora-sft-bitsandbytes"
    assert not (run / "merged").exists()
    done = finetune(folder, "chat", str(run), "--max-tokens", str(TOKENS), question="Who are you?")
    base = load(run / "base")
    before = answer(base, run / "adapter", None, "Who are you?")
    tuned = PeftModel.from_pretrained(base, run / "adapter")
    assert done.stdout.strip() == answer(tuned, run / "adapter", None, "Who are you?").strip()
    assert done.stdout.strip() != before.strip()


def test_merging_changes_no_answer(folder: Path) -> None:
    run = folder / "finetune-runs" / "qwen2-7b-lora-sft"
    ids = torch.tensor([list(range(3, 40))])
    merged = load(run / "merged")(ids).logits
    unmerged = PeftModel.from_pretrained(load(run / "base"), run / "adapter")(ids).logits
    torch.testing.assert_close(merged, unmerged, atol=1e-4, rtol=1e-4)


def answer(model: Any, tokenizer_folder: Path, system: str | None, question: str) -> str:
    """What the tutorial's inference.py computes."""
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    opening = [] if system is None else [{"role": "system", "content": system}]
    prompt = tokenizer.apply_chat_template(
        [*opening, {"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    stops = sorted({tokenizer.eos_token_id, *tokenizer.convert_tokens_to_ids(["<|im_end|>"])})
    ids = model.generate(**prompt, max_new_tokens=TOKENS, do_sample=False, eos_token_id=stops)[0]
    return str(tokenizer.decode(ids[prompt["input_ids"].shape[1] :], skip_special_tokens=True))
