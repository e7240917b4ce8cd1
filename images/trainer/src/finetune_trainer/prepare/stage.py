"""The prepare stage: base model, checks, tokens, report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_operator.api.outcome import ExitCode, Figure, StageFailure
from finetune_operator.api.result import read_results, record_stage, write_whole
from finetune_operator.api.run import RunConfig
from finetune_trainer.estimate.prepared import memory_report
from finetune_trainer.folders import remove, replace_folder
from finetune_trainer.prepare.collect import Pace
from finetune_trainer.prepare.compatibility import lines
from finetune_trainer.prepare.fingerprint import fingerprint
from finetune_trainer.prepare.job_check import check_job
from finetune_trainer.prepare.job_datasets import datasets_of
from finetune_trainer.prepare.job_template import template_of
from finetune_trainer.prepare.parity_rows import write_parity_rows
from finetune_trainer.prepare.problems import Problems
from finetune_trainer.prepare.remote.downloads import discard_own_store
from finetune_trainer.prepare.report import figures
from finetune_trainer.prepare.tokenise import Tokenised, tokenise
from finetune_trainer.prepare.tokenizer import stop_token_ids
from finetune_trainer.store import TOKENIZER, TRAIN, Meta, RowStore

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STAGE = "prepare"


def prepare(run: RunConfig, pace: Pace | None = None) -> Mapping[str, Figure]:
    """Run the stage and return its figures. A finished one with the same input is not run again.

    Raises StageFailure: INVALID_SPEC, SOURCE_UNREACHABLE, MODEL_UNUSABLE or INVALID_DATA.
    """
    run.paths.root.mkdir(parents=True, exist_ok=True)
    problems, input_hash = Problems(), ""
    with problems.gathered():
        input_hash = fingerprint(run, datasets_of(run))
    if not problems and _is_finished(run, input_hash):
        print("prepare: already done with the same input", flush=True)
        _write_report(run, Meta.load(run.paths.data).report)
        return dict(read_results(run.paths.result)[STAGE])
    tokenizer = check_job(run, problems)
    result = _write_tokens(run, tokenizer, input_hash, pace or Pace())
    record_stage(run.paths.result, STAGE, result)
    discard_own_store(run)
    return result


def _is_finished(run: RunConfig, input_hash: str) -> bool:
    try:
        same = Meta.load(run.paths.data).input_hash == input_hash
    except (OSError, ValueError, TypeError):
        return False
    return same and STAGE in read_results(run.paths.result) and run.paths.base_model.exists()


def _write_tokens(run: RunConfig, tokenizer: PreTrainedTokenizerBase, input_hash: str, pace: Pace) -> dict[str, Figure]:
    partial = run.paths.root / f".{run.paths.data.name}.partial"
    made = _tokenise(run, tokenizer, partial, input_hash, pace)
    tokenizer.save_pretrained(partial / TOKENIZER)
    write_parity_rows(RowStore(partial / TRAIN), partial / run.paths.parity_rows.name)
    Meta(
        input_hash=input_hash,
        tokens_hash=made.tokens_hash,
        files=made.files,
        pad_token_id=tokenizer.pad_token_id,
        stop_token_ids=stop_token_ids(tokenizer, template_of(run, tokenizer)),
        packing=run.spec.tokenization.packing.value,
        report=made.report,
    ).save(partial)
    replace_folder(partial, run.paths.data)
    _write_report(run, made.report)
    _print_summary(made.report)
    return figures(made.report)


def _write_report(run: RunConfig, report: Mapping[str, Any]) -> None:
    rows = RowStore(run.paths.data / TRAIN)
    step = rows.most_tokens(run.spec.training.sequences_per_step)
    whole = {**report, "memory": memory_report(run, rows.longest_sequence, step, _earlier_memory(run))}
    write_whole(run.paths.report, json.dumps(whole, indent=1, ensure_ascii=False).encode())


def _earlier_memory(run: RunConfig) -> Mapping[str, Any] | None:
    try:
        memory: Mapping[str, Any] | None = json.loads(run.paths.report.read_bytes()).get("memory")
    except (OSError, ValueError):
        return None
    return memory


def _tokenise(
    run: RunConfig, tokenizer: PreTrainedTokenizerBase, partial: Path, input_hash: str, pace: Pace
) -> Tokenised:
    try:
        return tokenise(run, tokenizer, partial, input_hash, pace)
    except StageFailure as failure:
        # Rows that were refused are read again: what a hub holds may have been corrected under the same name.
        if failure.code in (ExitCode.INVALID_DATA, ExitCode.INVALID_SPEC):
            remove(partial)
            problems = Problems()
            problems.keep(failure)
            problems.refuse(run.paths.report)
        raise


def _print_summary(report: Mapping[str, Any]) -> None:
    print(
        "prepare: {rows} rows in {sequences} sequences, {tokens} tokens of which {trainedTokens} are learnt; "
        "{dropped} rows dropped, {truncated} cut, {evaluationRows} held back".format(**report),
        flush=True,
    )
    for line in lines(report.get("compatibility", {})):
        print(f"prepare: {line}", flush=True)
    for warning in report["warnings"]:
        print(f"prepare: warning: {warning}", flush=True)
