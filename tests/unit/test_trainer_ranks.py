"""How many processes train, what each is told, and what is said of the one that failed."""

import pytest

from finetune_operator.api.outcome import ExitCode, StageFailure, TerminationMessage
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.train.ranks import failure, layout, needs_ranks, rank_environments
from finetune_trainer.train.supervise import Failed


def spec(nodes: int = 1, gpus: int = 1, **fields: object) -> FineTuneJobSpec:
    return FineTuneJobSpec.model_validate(
        {
            "model": {"source": "pvc://models/tiny"},
            "datasets": [{"source": "pvc://data/rows.jsonl"}],
            "method": "LoRA",
            "resources": {"nodes": nodes, "gpusPerNode": gpus},
            "storage": {"accessMode": "ReadWriteMany"},
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("of", "needed"),
    [
        (spec(), False),
        (spec(gpus=0), False),
        (spec(gpus=2), True),
        (spec(nodes=2), True),
        (spec(deepspeed={"stage": 2}), True),
    ],
)
def test_several_processes_are_started_only_where_needed(of: FineTuneJobSpec, needed: bool) -> None:
    assert needs_ranks(of) is needed


def test_every_process_is_told_its_place_among_all_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = {
        "PET_NNODES": "2",
        "PET_NODE_RANK": "1",
        "PET_MASTER_ADDR": "job-train-0-0.job",
        "PET_MASTER_PORT": "29400",
    }
    for name, value in placed.items():
        monkeypatch.setenv(name, value)
    first, second = rank_environments(2)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    assert [first[name] for name in names] == ["2", "0", "4", "2", "job-train-0-0.job", "29400"]
    assert [second[name] for name in names] == ["3", "1", "4", "2", "job-train-0-0.job", "29400"]


def test_on_one_node_all_processes_share_a_free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    first, second = rank_environments(2)
    assert first["MASTER_PORT"] == second["MASTER_PORT"]
    assert first["MASTER_ADDR"] == "127.0.0.1"


SAID = TerminationMessage("LossNotFinite", "step 7: loss nan", {"step": 7})


@pytest.mark.parametrize(
    ("failed", "words", "several", "memory", "expected"),
    [
        (Failed(0, 73), SAID, False, False, (73, "step 7: loss nan")),
        (Failed(1, 73), SAID, True, False, (73, "process 1: step 7: loss nan")),
        (Failed(0, -9), None, False, True, (71, "the kernel killed it because the container used more memory")),
        (Failed(0, -15, told_to_stop=True), None, False, False, (75, "told to stop while it started")),
    ],
    ids=["its own words", "which of several", "killed for memory", "told to stop before it could listen"],
)
def test_the_stage_says_what_the_process_that_failed_first_said(
    failed: Failed, words: TerminationMessage | None, several: bool, memory: bool, expected: tuple[int, str]
) -> None:
    found = failure(failed, words, several, killed_for_memory=memory)
    assert isinstance(found, StageFailure)
    assert (found.code, expected[1] in found.message) == (ExitCode(expected[0]), True)


def test_a_process_that_was_killed_from_outside_is_a_fault_of_the_node() -> None:
    found = failure(Failed(0, -9), None, False, killed_for_memory=False)
    assert isinstance(found, SystemExit)
    assert found.code == 137


def test_the_layout_of_a_checkpoint_names_what_another_number_of_processes_could_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert layout(spec()) == "1 process"
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert layout(spec()) == "4 processes"
    assert layout(spec(deepspeed={"stage": 2})) == "4 processes with ZeRO stage 2"
