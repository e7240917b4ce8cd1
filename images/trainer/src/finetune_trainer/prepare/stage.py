"""The prepare stage: base model, checks, tokens, report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from finetune_operator.api.outcome import Figure
from finetune_operator.api.result import read_results, record_stage, write_whole
from finetune_operator.api.run import RunConfig
from finetune_trainer.folders import fresh_folder, replace_folder
from finetune_trainer.prepare.base_model import fetch_base_model
from finetune_trainer.prepare.fingerprint import fingerprint
from finetune_trainer.prepare.model_check import check_model
from finetune_trainer.prepare.report import figures
from finetune_trainer.prepare.support import check_supported
from finetune_trainer.prepare.tokenise import datasets_of, set_up_tokenizer, template_of, tokenise
from finetune_trainer.prepare.tokenizer import stop_token_ids
from finetune_trainer.store import EVALUATION, TOKENIZER, TRAIN, Meta, write_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STAGE = "prepare"


def prepare(run: RunConfig) -> Mapping[str, Figure]:
    """Run the stage and return its figures. A finished one with the same input is not run again.

    Raises StageFailure: INVALID_SPEC, SOURCE_UNREACHABLE, MODEL_UNUSABLE or INVALID_DATA.
    """
    check_supported(run)
    run.paths.root.mkdir(parents=True, exist_ok=True)
    input_hash = fingerprint(run, datasets_of(run))
    if _is_finished(run, input_hash):
        print("prepare: already done with the same input", flush=True)
        return dict(read_results(run.paths.result)[STAGE])
    folder = fetch_base_model(run)
    print(f"prepare: base model at {folder}", flush=True)
    tokenizer = check_model(folder, run.spec)
    set_up_tokenizer(tokenizer, template_of(run))
    result = _write_tokens(run, tokenizer, input_hash)
    record_stage(run.paths.result, STAGE, result)
    return result


def _is_finished(run: RunConfig, input_hash: str) -> bool:
    try:
        same = Meta.load(run.paths.data).input_hash == input_hash
    except (OSError, ValueError, TypeError):
        return False
    return same and STAGE in read_results(run.paths.result) and run.paths.base_model.exists()


def _write_tokens(run: RunConfig, tokenizer: PreTrainedTokenizerBase, input_hash: str) -> dict[str, Figure]:
    made = tokenise(run, tokenizer)
    partial = fresh_folder(run.paths.root / f".{run.paths.data.name}.partial")
    tokens_hash = write_rows(partial / TRAIN, made.train.rows, made.train.sequences)
    if made.evaluation.rows:
        write_rows(partial / EVALUATION, made.evaluation.rows, made.evaluation.sequences)
    tokenizer.save_pretrained(partial / TOKENIZER)
    Meta(
        input_hash=input_hash,
        tokens_hash=tokens_hash,
        files=made.files,
        pad_token_id=tokenizer.pad_token_id,
        stop_token_ids=stop_token_ids(tokenizer, template_of(run)),
        packing=run.spec.tokenization.packing.value,
        report=made.report,
    ).save(partial)
    replace_folder(partial, run.paths.data)
    write_whole(run.paths.report, json.dumps(made.report, indent=1, ensure_ascii=False).encode())
    _print_summary(made.report)
    return figures(made.report)


def _print_summary(report: Mapping[str, object]) -> None:
    print(
        "prepare: {rows} rows in {sequences} sequences, {tokens} tokens of which {trainedTokens} are learnt; "
        "{dropped} rows dropped, {truncated} cut, {evaluationRows} held back".format(**report),
        flush=True,
    )
