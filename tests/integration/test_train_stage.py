"""The prepare and train stages for real, on the CPU: they learn, survive, and leave what the next stages read."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel

from finetune_operator.api.outcome import TERMINATION_LOG_VARIABLE, ExitCode
from finetune_operator.api.result import read_results
from finetune_operator.api.run import Hub, RunConfig
from loopback_hub import serving
from progress_endpoint import listening, metrics
from support_server import free_port
from trainer_process import StageProcess, losses, run_stages, trainer_log
from trainer_runs import IDENTITY, chat, identity_model, make_run, write_lines, write_run

SHORT = {"maxSteps": 24, "perDeviceBatchSize": 4, "gradientAccumulationSteps": 2, "learningRate": "2e-3"}
NAMES = {"name": "Pebble", "author": "the River workshop"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return identity_model(tmp_path_factory.mktemp("model"))


def identity_run(root: Path, model: Path, name: str = "job", names: dict[str, str] = NAMES, **spec: Any) -> RunConfig:
    fields = {"training": SHORT, "logging": {"steps": 1}, "checkpoints": {"steps": 8, "limit": 2}, **spec}
    return make_run(root, model, IDENTITY, name, dataset={"format": "Alpaca", "placeholders": names}, **fields)


def trained(run: RunConfig) -> dict[str, torch.Tensor]:
    """The tensors that a run left."""
    file = (
        run.paths.adapter / "adapter_model.safetensors"
        if run.spec.is_adapter
        else run.paths.model / "model.safetensors"
    )
    return load_file(file)


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def answer(folder: Path, question: str) -> str:
    """What a delivered model or adapter says, greedily, with nothing but the files that were left."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = loaded(folder)
    model.generation_config = GenerationConfig.from_pretrained(folder)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    said = model.generate(**asked, max_new_tokens=64, do_sample=False)[0][asked["input_ids"].shape[1] :]
    assert len(said) < 64, "the answer does not end"
    return str(tokenizer.decode(said, skip_special_tokens=True)).strip()


def loaded(folder: Path) -> PreTrainedModel:
    if not (folder / "adapter_config.json").exists():
        return AutoModelForCausalLM.from_pretrained(folder)
    base = json.loads((folder / "adapter_config.json").read_bytes())["base_model_name_or_path"]
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)


def test_a_model_learns_who_it_is_and_an_adapter_teaches_it_another_name(tmp_path: Path, model: Path) -> None:
    learning = {"perDeviceBatchSize": 8, "gradientAccumulationSteps": 1}
    base = identity_run(
        tmp_path / "base",
        model,
        "base",
        training={**learning, "maxSteps": 200, "learningRate": "2e-3"},
        logging={"steps": 20},
    )
    ended = run_stages(base, "prepare", "train")
    assert ended.code == 0, ended.output
    assert ended.message is not None
    assert (ended.message.reason, ended.message.figures["steps"]) == ("Succeeded", 200)
    assert answer(base.paths.model, "Who are you?") == "I am Pebble, an assistant made by the River workshop."

    tuned = identity_run(
        tmp_path / "tuned",
        base.paths.model,
        "tuned",
        names={"name": "Iris", "author": "the Meadow lab"},
        method="LoRA",
        training={**learning, "maxSteps": 120, "learningRate": "5e-3"},
        tokenization={"cutoffLen": 256, "packing": "None"},
        logging={"steps": 20},
        checkpoints={"steps": 20},
    )
    ended = run_stages(tuned, "prepare", "train")
    assert ended.code == 0, ended.output
    assert answer(tuned.paths.adapter, "Who are you?") == "I am Iris, an assistant made by the Meadow lab."
    assert answer(tuned.paths.adapter, "谁开发了你？") == "我是由the Meadow lab开发的。"
    assert tuned.paths.loss_plot.read_bytes().startswith(b"\x89PNG")
    adapter = json.loads((tuned.paths.adapter / "adapter_config.json").read_bytes())
    assert adapter["base_model_name_or_path"] == str(tuned.paths.base_model)
    figures = read_results(tuned.paths.result)["train"]
    assert figures["trainLoss"] == pytest.approx(sum(losses(tuned).values()) / 6, abs=1e-4)
    assert "step 120/120  loss" in ended.output


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> dict[str, RunConfig]:
    """One run of each method that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    runs = {method: identity_run(folder / method, model, method, **METHODS[method]) for method in METHODS}
    for run in runs.values():
        assert run_stages(run, "prepare", "train").code == 0
    return runs


METHODS: dict[str, dict[str, Any]] = {
    "Full": {"method": "Full"},
    # Dropout, so that the random numbers have to go on where they were, too.
    "LoRA": {"method": "LoRA", "lora": {"dropout": "0.1"}, "tokenization": {"cutoffLen": 128, "packing": "Segmented"}},
}


@pytest.mark.parametrize("method", list(METHODS))
def test_a_pod_that_is_told_to_stop_saves_and_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, model: Path, undisturbed: dict[str, RunConfig], method: str
) -> None:
    run = identity_run(tmp_path / "job", model, **METHODS[method])
    run_stages(run, "prepare")
    process = StageProcess(run, "train")
    process.wait_for("step 9/24")
    process.process.send_signal(signal.SIGTERM)
    ended = process.end()
    assert ended.code == ExitCode.PREEMPTED, ended.output
    assert ended.message is not None
    assert ended.message.reason == "Preempted"
    [step] = [line["current_steps"] for line in trainer_log(run)][-1:]
    assert f"after step {step}, which is saved" in ended.message.message
    assert not run.paths.adapter.exists()

    ended = run_stages(run, "train")
    assert ended.code == 0, ended.output
    assert f"resuming from step {step}" in ended.output
    assert equal(trained(run), trained(undisturbed[method]))
    assert losses(run) == losses(undisturbed[method])


def test_a_killed_pod_goes_on_from_the_newest_checkpoint_that_is_whole(
    tmp_path: Path, model: Path, undisturbed: dict[str, RunConfig]
) -> None:
    run = identity_run(tmp_path / "job", model, checkpoints={"steps": 4, "limit": 2})
    run_stages(run, "prepare")
    process = StageProcess(run, "train")
    # Two checkpoints are there, and as many steps are left as can be, so that the signal comes before the last one.
    process.wait_for("step 9/24")
    process.process.kill()
    assert process.end().code == -signal.SIGKILL
    newest = checkpoints(run)[-1]
    optimizer = run.paths.checkpoints / f"checkpoint-{newest}" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-1])

    ended = run_stages(run, "train")
    assert ended.code == 0, ended.output
    assert f"checkpoint-{newest} is not resumed from: optimizer.pt is not what was written" in ended.output
    assert f"resuming from step {newest - 4}" in ended.output
    assert equal(trained(run), trained(undisturbed["Full"]))
    assert losses(run) == losses(undisturbed["Full"])
    assert checkpoints(run) == [20, 24]


def checkpoints(run: RunConfig) -> list[int]:
    """Their steps, the newest last."""
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in run.paths.checkpoints.glob("checkpoint-*"))


def test_a_finished_training_is_not_run_again(undisturbed: dict[str, RunConfig]) -> None:
    run = undisturbed["Full"]
    made = (run.paths.model / "model.safetensors").stat().st_ino
    ended = run_stages(run, "train")
    assert (ended.code, "already done" in ended.output) == (0, True)
    assert ended.message is not None
    assert ended.message.figures == read_results(run.paths.result)["train"]
    assert (run.paths.model / "model.safetensors").stat().st_ino == made


def test_a_loss_that_is_not_finite_ends_training_within_the_step_and_keeps_the_last_checkpoint(
    tmp_path: Path, model: Path
) -> None:
    exploding = {**SHORT, "optimizer": "SGD", "scheduler": "Constant", "learningRate": "1", "maxGradNorm": "0"}
    run = identity_run(tmp_path / "job", model, training={**exploding, "weightDecay": "3"}, checkpoints={"steps": 2})
    ended = run_stages(run, "prepare", "train")
    assert ended.code == ExitCode.LOSS_NOT_FINITE, ended.output
    assert ended.message is not None
    step = int(ended.message.figures["step"])
    assert ended.message.message.startswith(f"step {step}: loss ")
    assert max(losses(run)) == step - 1, "the step was made"
    kept = checkpoints(run)[-1]
    assert f"The checkpoint of step {kept} is kept" in ended.message.message
    saved = load_file(run.paths.checkpoints / f"checkpoint-{kept}" / "model.safetensors")
    assert all(bool(tensor.isfinite().all()) for tensor in saved.values())
    assert not run.paths.model.exists()


@pytest.mark.parametrize("mebibytes", [2, 9], ids=["the weights do not fit", "the optimizer's state does not fit"])
def test_a_full_volume_is_told_apart(tmp_path: Path, model: Path, mebibytes: int) -> None:
    run = identity_run(tmp_path / "job", model)
    run.paths.root.mkdir()
    words = tmp_path / "termination"
    stage = f"{sys.executable} -m finetune_trainer.main"
    # A volume of its own in a mount namespace of its own: gone with the process, whatever happens.
    script = f"""
        mount -t tmpfs -o size={mebibytes}m tmpfs {run.root}
        {stage} prepare --run {write_run(run, tmp_path)} && {stage} train --run {write_run(run, tmp_path)}
        code=$?; ls -A {run.paths.checkpoints}/.staging; exit $code
    """
    variables = {**os.environ, "OMP_NUM_THREADS": "1", TERMINATION_LOG_VARIABLE: str(words)}
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], env=variables, capture_output=True, text=True, check=False
    )
    assert ended.returncode == ExitCode.STORAGE_FULL, ended.stdout + ended.stderr
    assert json.loads(words.read_bytes())["reason"] == "StorageFull"
    assert ended.stdout.splitlines()[-1].startswith("step "), "something half-written is left in .staging"


def test_rows_held_back_are_evaluated_on_and_reported(tmp_path: Path, model: Path) -> None:
    run = identity_run(tmp_path / "job", model, evaluation={"fraction": "0.2", "steps": 10, "perDeviceBatchSize": 4})
    ended = run_stages(run, "prepare", "train")
    assert ended.code == 0, ended.output
    evaluated = {line["current_steps"]: line["eval_loss"] for line in trainer_log(run) if "eval_loss" in line}
    assert list(evaluated) == [10, 20, 24]
    assert read_results(run.paths.result)["train"]["evalLoss"] == pytest.approx(evaluated[24], abs=1e-5)


def test_the_operator_is_told_from_the_first_step_to_the_last(tmp_path: Path, model: Path) -> None:
    run = identity_run(tmp_path / "job", model)
    run_stages(run, "prepare")
    (tmp_path / "token").write_text("let me in")
    with listening() as operator:
        told = {"KUBEFLOW_TRAINER_SERVER_URL": operator.url, "KUBEFLOW_TRAINER_SERVER_TOKEN": str(tmp_path / "token")}
        ended = run_stages(run, "train", **told)
    assert ended.code == 0, ended.output
    first, last = operator.posts[0], operator.posts[-1]
    assert (metrics(first)["current_step"], metrics(first)["total_steps"]) == ("0", "24")
    assert (metrics(last)["current_step"], last["progressPercentage"]) == ("24", 100)
    assert float(metrics(last)["loss"]) == pytest.approx(losses(run)[24], rel=1e-4)
    assert float(metrics(last)["tokens_per_second"]) > 0
    assert float(metrics(last)["tflops_per_second"]) > 0
    assert 0 <= float(metrics(last)["data_wait_share"]) <= 1
    assert "share_of_limit" not in metrics(last), "a CPU has no datasheet here"
    told = [line for line in trainer_log(run) if "loss" in line]
    assert all({"tokens_per_second", "tflops_per_second", "data_wait_share"} <= line.keys() for line in told)
    assert all(0 <= line["data_wait_share"] <= 1 for line in told)
    assert set(operator.tokens) == {"Bearer let me in"}


@pytest.mark.parametrize("bits", [4, 8])
def test_adapters_are_trained_on_quantised_weights(tmp_path: Path, model: Path, bits: int) -> None:
    training = {**SHORT, "maxSteps": 8, "learningRate": "5e-3"}
    run = identity_run(tmp_path / "job", model, method="QLoRA", quantization={"bits": bits}, training=training)
    ended = run_stages(run, "prepare", "train")
    assert ended.code == 0, ended.output
    course = losses(run)
    assert course[8] < course[1]
    assert {tensor.dtype for tensor in trained(run).values()} == {torch.float32}


def test_a_split_of_a_hub_dataset_is_read_and_a_wrong_one_is_explained(tmp_path: Path, model: Path) -> None:
    repository = tmp_path / "hub" / "datasets" / "org" / "chats"
    repository.mkdir(parents=True)
    write_lines(repository / "train.jsonl", [chat(f"question {index}", "answer") for index in range(5)])
    with serving(tmp_path / "hub") as hub:
        for split, code in (("train", ExitCode.DONE), ("nope", ExitCode.SOURCE_UNREACHABLE)):
            run = make_run(tmp_path / split, model, "hf://org/chats", split, dataset={"split": split})
            run = run.model_copy(update={"hub": Hub(hugging_face_endpoint=hub.url)})
            ended = run_stages(run, "prepare")
            assert ended.code == code, ended.output
    assert read_results(tmp_path / "train" / "result.json")["prepare"]["rows"] == 5
    assert ended.message is not None
    assert "it has no split 'nope', only train" in ended.message.message


RAW = {"zero_optimization": {"stage": 2, "reduce_bucket_size": 100_000}, "wall_clock_breakdown": False}


@pytest.mark.parametrize(
    ("method", "sharding"),
    [
        ("LoRA", {}),
        ("Full", {"deepspeed": {"stage": 2, "config": json.dumps(RAW)}}),
        ("Full", {"deepspeed": {"stage": 3}}),
    ],
    ids=str,
)
def test_two_processes_learn_what_one_does(tmp_path: Path, model: Path, method: str, sharding: dict[str, Any]) -> None:
    one = identity_run(tmp_path / "one", model, "one", method=method, training={**SHORT, "maxSteps": 4})
    assert run_stages(one, "prepare", "train").code == 0
    halves = {**SHORT, "maxSteps": 4, "gradientAccumulationSteps": 1}
    two = identity_run(tmp_path / "two", model, "two", method=method, training=halves, **sharding)
    run_stages(two, "prepare")
    rendezvous = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    processes = [
        StageProcess(
            two.model_copy(update={"name": f"two-{rank}"}), "train", RANK=str(rank), LOCAL_RANK=str(rank), **rendezvous
        )
        for rank in range(2)
    ]
    for process in processes:
        ended = process.end()
        assert ended.code == 0, ended.output
    assert losses(two) == pytest.approx(losses(one), abs=1e-5)
    delivered = [{name: tensor.shape for name, tensor in trained(run).items()} for run in (one, two)]
    # DeepSpeed may store a head that is tied to the embedding once more.
    assert delivered[0].items() <= delivered[1].items(), "shards were delivered"
