"""The prepare stage: base model, checks, tokens, report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finetune_operator.api.outcome import ExitCode, Figure, StageFailure
from finetune_operator.api.result import read_results, record_stage, write_whole
from finetune_operator.api.run import RunConfig
from finetune_operator.api.tokenization import Packing
from finetune_operator.api.training import Evaluation
from finetune_trainer.folders import fresh_folder, replace_folder
from finetune_trainer.prepare.base_model import fetch_base_model
from finetune_trainer.prepare.collect import Collected, Collector, Rules, refuse_faults
from finetune_trainer.prepare.encoders import ChatTemplateEncoder, Encoder, TemplateEncoder
from finetune_trainer.prepare.fingerprint import fingerprint
from finetune_trainer.prepare.model_check import check_model
from finetune_trainer.prepare.packing import longest_row, pack
from finetune_trainer.prepare.report import build_report, figures
from finetune_trainer.prepare.sources import NamedDataset
from finetune_trainer.prepare.split import split_rows
from finetune_trainer.prepare.support import check_supported
from finetune_trainer.prepare.tokenizer import apply_template, fix_padding, stop_token_ids
from finetune_trainer.store import EVALUATION, TOKENIZER, TRAIN, Meta, StoredRow, write_rows
from finetune_trainer.templates import TEMPLATES, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STAGE = "prepare"


def prepare(run: RunConfig) -> Mapping[str, Figure]:
    """Run the stage and return its figures. A finished one with the same input is not run again.

    Raises StageFailure: INVALID_SPEC, SOURCE_UNREACHABLE, MODEL_UNUSABLE or INVALID_DATA.
    """
    check_supported(run)
    run.paths.root.mkdir(parents=True, exist_ok=True)
    input_hash = fingerprint(run, _datasets(run))
    if _is_finished(run, input_hash):
        print("prepare: already done with the same input", flush=True)
        return dict(read_results(run.paths.result)[STAGE])
    folder = fetch_base_model(run)
    print(f"prepare: base model at {folder}", flush=True)
    tokenizer = check_model(folder, run.spec)
    template = TEMPLATES.get(run.spec.tokenization.template)
    if template is not None:
        apply_template(tokenizer, template)
    fix_padding(tokenizer)
    result = _write_tokens(run, tokenizer, template, input_hash)
    record_stage(run.paths.result, STAGE, result)
    return result


def _datasets(run: RunConfig) -> list[NamedDataset]:
    named = [NamedDataset(f"spec.datasets[{index}]", dataset) for index, dataset in enumerate(run.spec.datasets)]
    evaluation = _evaluation_dataset(run)
    return named if evaluation is None else [*named, evaluation]


def _evaluation_dataset(run: RunConfig) -> NamedDataset | None:
    if run.spec.evaluation is None or run.spec.evaluation.dataset is None:
        return None
    return NamedDataset("spec.evaluation.dataset", run.spec.evaluation.dataset)


def _is_finished(run: RunConfig, input_hash: str) -> bool:
    try:
        same = Meta.load(run.paths.data).input_hash == input_hash
    except (OSError, ValueError, TypeError):
        return False
    return same and STAGE in read_results(run.paths.result) and run.paths.base_model.exists()


@dataclass(frozen=True, slots=True)
class _Parts:
    train: list[StoredRow]
    evaluation: list[StoredRow]


def _write_tokens(
    run: RunConfig, tokenizer: PreTrainedTokenizerBase, template: Template | None, input_hash: str
) -> dict[str, Figure]:
    encoder: Encoder = ChatTemplateEncoder(tokenizer) if template is None else TemplateEncoder(tokenizer, template)
    longest = longest_row(run.spec.tokenization.cutoff_len, packed=_is_packed(run))
    collector = Collector(run, encoder, Rules(run.spec.tokenization, longest, drops_misordered=template is not None))
    collections = [collector.collect(named) for named in _datasets(run)]
    refuse_faults(collections)
    parts = _divide(run, collections)
    sequences = _sequences(run, parts.train)
    report = build_report(collections, parts.train, parts.evaluation, len(sequences))
    partial = fresh_folder(run.paths.root / f".{run.paths.data.name}.partial")
    tokens_hash = write_rows(partial / TRAIN, parts.train, sequences)
    if parts.evaluation:
        write_rows(partial / EVALUATION, parts.evaluation, _sequences(run, parts.evaluation))
    tokenizer.save_pretrained(partial / TOKENIZER)
    Meta(
        input_hash=input_hash,
        tokens_hash=tokens_hash,
        files=collector.files,
        pad_token_id=tokenizer.pad_token_id,
        stop_token_ids=stop_token_ids(tokenizer, template),
        packing=run.spec.tokenization.packing.value,
        report=report,
    ).save(partial)
    replace_folder(partial, run.paths.data)
    write_whole(run.paths.report, json.dumps(report, indent=1, ensure_ascii=False).encode())
    _print_summary(report)
    return figures(report)


def _is_packed(run: RunConfig) -> bool:
    return run.spec.tokenization.packing is not Packing.NONE


def _sequences(run: RunConfig, rows: Sequence[StoredRow]) -> list[list[int]]:
    if not _is_packed(run):
        return [[index] for index in range(len(rows))]
    return pack([len(row.input_ids) for row in rows], longest_row(run.spec.tokenization.cutoff_len, packed=True))


def _divide(run: RunConfig, collections: Sequence[Collected]) -> _Parts:
    """Rows to train and to evaluate on. Dropped rows count for the split, as they do in LLaMA-Factory."""
    held_out = collections[-1].rows if _evaluation_dataset(run) is not None else []
    training = collections[: len(run.spec.datasets)]
    rows = [row for collected in training for row in collected.rows]
    chosen: Sequence[int] = range(len(rows))
    held_back: Sequence[int] = ()
    if run.spec.evaluation is not None and run.spec.evaluation.dataset is None:
        chosen, held_back = _split(len(rows), run.spec.evaluation, run.spec.training.seed)
    train = [row for index in chosen if (row := rows[index]) is not None]
    evaluation = [row for row in [*(rows[index] for index in held_back), *held_out] if row is not None]
    if not train:
        raise StageFailure(
            ExitCode.INVALID_DATA,
            "spec.datasets: no row is left to train on. "
            + "; ".join(place for collected in training for place in collected.dropped[:5]),
        )
    if run.spec.evaluation is not None and not evaluation:
        raise StageFailure(
            ExitCode.INVALID_DATA,
            "spec.evaluation: no row is left to evaluate on; give a larger fraction, or a dataset with usable rows.",
        )
    return _Parts(train, evaluation)


def _split(count: int, evaluation: Evaluation, seed: int) -> tuple[Sequence[int], Sequence[int]]:
    field, share = ("rows", evaluation.rows) if evaluation.rows is not None else ("fraction", evaluation.fraction)
    try:
        return split_rows(count, evaluation.rows or float(evaluation.fraction or "0"), seed)
    except ValueError as error:
        raise StageFailure(
            ExitCode.INVALID_DATA,
            f"spec.evaluation.{field}: {share} of {count} rows leaves nothing to train or evaluate on ({error}).",
        ) from error


def _print_summary(report: Mapping[str, object]) -> None:
    print(
        "prepare: {rows} rows in {sequences} sequences, {tokens} tokens of which {trainedTokens} are learnt; "
        "{dropped} rows dropped, {truncated} cut, {evaluationRows} held back".format(**report),
        flush=True,
    )
