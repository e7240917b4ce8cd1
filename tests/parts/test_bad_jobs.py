"""Every job that cannot be trained is refused before training, with where, what was found, what was expected and what to do."""

from __future__ import annotations

import contextlib
import json
import random
import time
from pathlib import Path

import pytest

from bad_models import MODELS
from bad_rows import ROWS, TEXT
from bad_specs import SPECS
from damaged_models import both, cut, tokenizer
from finetune_operator.api.conditions import INVALID_SPEC
from finetune_operator.api.outcome import MESSAGE_LIMIT, ExitCode, StageFailure, TerminationMessage
from finetune_operator.api.result import read_results
from finetune_operator.cli.errors import CommandError
from finetune_trainer.prepare.stage import prepare
from finetune_trainer.tokens import View, show_tokens
from job_cases import GOOD, JobCase, checked, write_case
from tiny_models import save_base
from trainer_runs import chat

BAD = (*TEXT, *ROWS, *MODELS, *SPECS)
SECONDS = 30
"""A verdict takes no longer, whatever is wrong."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad") / "base"
    save_base(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))


def refusal(manifest: Path) -> str:
    """What is said of the job, by whoever refuses it first."""
    try:
        run = checked(manifest)
    except CommandError as error:
        return error.message
    with pytest.raises(StageFailure) as caught:
        prepare(run)
    assert not run.paths.data.exists(), "training would find rows"
    assert "prepare" not in read_results(run.paths.result)
    return caught.value.message


def test_there_are_enough_bad_jobs_and_no_two_are_the_same() -> None:
    assert len({case.case for case in BAD}) == len(BAD) >= 80


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.case)
def test_a_bad_job_is_refused_before_training(tmp_path: Path, base: Path, case: JobCase) -> None:
    manifest = write_case(case, base, tmp_path)
    began = time.monotonic()
    message = refusal(manifest)
    assert time.monotonic() - began < SECONDS
    assert [said for said in case.says if said not in message] == [], message


@pytest.mark.parametrize("seed", range(12))
def test_all_that_is_wrong_with_a_job_is_said_in_one_pass(tmp_path: Path, base: Path, seed: int) -> None:
    chance = random.Random(seed)
    rows = chance.sample([case for case in ROWS if len(case.rows) == len(GOOD) - 1], k=chance.randint(1, 4))
    specs = chance.sample(
        [case for case in SPECS if "deepspeed" not in case.spec and any(path.startswith("lora") for path in case.spec)],
        k=chance.randint(0, 2),
    )
    raw = chance.choice([case for case in SPECS if set(case.spec) == {"deepspeed"}])
    job = JobCase(
        "everything",
        rows=[*GOOD[:2], *(row.rows[2] for row in rows)],
        model=both(cut("model.safetensors"), tokenizer(eos_token=None)),
        spec={
            **raw.spec,
            **{path: value for case in specs for path, value in case.spec.items()},
            "lora.targetModules": ["q_proj", "nowhere"],
            "tokenization.cutoffLen": 40000,
        },
    )
    run = checked(write_case(job, base, tmp_path))
    with pytest.raises(StageFailure):
        prepare(run)
    expected = [
        *(text for case in (raw, *specs) for text in case.says),
        "spec.tokenization.cutoffLen: 40000 is more than the 32768 positions",
        "model.safetensors is not a whole safetensors file",
        "the tokenizer has no end-of-sequence token",
        "no module of the model is named 'nowhere'",
        *(text for row in rows for text in row.says[2:]),
        *(f"rows.jsonl:{line}: " for line in range(3, 3 + len(rows))),
    ]
    told = "\n".join(problem["message"] for problem in json.loads(run.paths.report.read_bytes())["problems"])
    assert [text for text in expected if text not in told] == [], told


def test_a_message_with_many_faults_fits_a_termination_message_and_says_how_many_there_are(
    tmp_path: Path, base: Path
) -> None:
    broken = [{"messages": [{"role": "user", "content": None}]}] * 500
    case = JobCase("many", rows=broken, spec={"tokenization.template": "nobody", "lora.targetModules": ["nowhere"]})
    run = checked(write_case(case, base, tmp_path))
    with pytest.raises(StageFailure) as caught:
        prepare(run)
    message = caught.value.message
    encoded = TerminationMessage(INVALID_SPEC, message, caught.value.figures).encode()
    decoded = TerminationMessage.decode(encoded.decode())
    assert len(encoded) <= MESSAGE_LIMIT
    assert decoded is not None
    assert decoded.message == message, "cut"
    for said in ("template: nobody", "named 'nowhere'", "500 rows cannot", "rows.jsonl:1: ", "and 480 more"):
        assert said in message


def test_a_corrected_job_is_prepared_where_the_wrong_one_was_refused(tmp_path: Path, base: Path) -> None:
    manifest = write_case(JobCase("wrong", rows=["{"]), base, tmp_path)
    run = checked(manifest)
    with contextlib.suppress(StageFailure):
        prepare(run)
    (tmp_path / "data" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in GOOD))
    assert prepare(run)["rows"] == len(GOOD)
    assert json.loads(run.paths.report.read_bytes())["rows"] == len(GOOD)


def test_a_look_at_the_tokens_tells_the_same_in_one_pass(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = JobCase(
        "wrong",
        rows=["{", chat("a", "")],
        model=tokenizer(eos_token=None),
        spec={"deepspeed": {"stage": 2, "config": '{"gradient_clipping": 5}'}},
    )
    file = tmp_path / "wrong.json"
    file.write_text(checked(write_case(case, base, tmp_path)).dump())
    code = show_tokens([file], View(packed=False, rendered=False, evaluation=False, coloured=False))
    told = capsys.readouterr()
    assert (code, told.out) == (ExitCode.INVALID_SPEC, "")
    for said in ("gradient_clipping: found 5", "no end-of-sequence token", "rows.jsonl:1: ", "rows.jsonl:2: answer 1"):
        assert any(line.startswith("error: wrong: ") and said in line for line in told.err.splitlines()), told.err
