"""From the rows of a job's datasets to the sequences that it is trained and evaluated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_operator.api.tokenization import Packing
from finetune_operator.api.training import Evaluation
from finetune_trainer.prepare.collect import Collected, Collector, Rules, refuse_faults
from finetune_trainer.prepare.encoders import ChatTemplateEncoder, Encoder, TemplateEncoder
from finetune_trainer.prepare.packing import longest_row, pack
from finetune_trainer.prepare.report import build_report
from finetune_trainer.prepare.sources import NamedDataset
from finetune_trainer.prepare.split import split_rows
from finetune_trainer.prepare.tokenizer import apply_template, fix_padding
from finetune_trainer.store import StoredRow
from finetune_trainer.templates import TEMPLATES, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Part:
    """Rows to train or to evaluate on, and the sequences that they share, as indices of the rows."""

    rows: list[StoredRow]
    sequences: list[list[int]]


@dataclass(frozen=True, slots=True)
class Tokenised:
    """Everything that prepare makes of the datasets."""

    train: Part
    evaluation: Part
    files: list[str]
    """What ``StoredRow.file`` counts."""
    report: dict[str, Any]


def template_of(run: RunConfig) -> Template | None:
    """The named template, or None where the job uses the model's own."""
    return TEMPLATES.get(run.spec.tokenization.template)


def set_up_tokenizer(tokenizer: PreTrainedTokenizerBase, template: Template | None) -> None:
    """Make the model's tokenizer the job's. Raises StageFailure where the template does not suit it."""
    if template is not None:
        apply_template(tokenizer, template)
    fix_padding(tokenizer)


def tokenise(run: RunConfig, tokenizer: PreTrainedTokenizerBase) -> Tokenised:
    """Read, check, encode, split and pack, with a tokenizer that is set up.

    Raises StageFailure: INVALID_SPEC, SOURCE_UNREACHABLE or INVALID_DATA.
    """
    template = template_of(run)
    encoder: Encoder = ChatTemplateEncoder(tokenizer) if template is None else TemplateEncoder(tokenizer, template)
    longest = longest_row(run.spec.tokenization.cutoff_len, packed=_is_packed(run))
    closing = tokenizer.eos_token_id if template is not None and template.ends_once else None
    rules = Rules(run.spec.tokenization, longest, drops_misordered=template is not None, closing=closing)
    collector = Collector(run, encoder, rules)
    collections = [collector.collect(named) for named in datasets_of(run)]
    refuse_faults(collections)
    train, evaluation = _divide(run, collections)
    sequences = _sequences(run, train)
    return Tokenised(
        Part(train, sequences),
        Part(evaluation, _sequences(run, evaluation)),
        collector.files,
        build_report(collections, train, evaluation, len(sequences)),
    )


def datasets_of(run: RunConfig) -> list[NamedDataset]:
    """Everything that rows come from: the datasets, then the one to evaluate on, if there is one."""
    named = [NamedDataset(f"spec.datasets[{index}]", dataset) for index, dataset in enumerate(run.spec.datasets)]
    evaluation = _evaluation_dataset(run)
    return named if evaluation is None else [*named, evaluation]


def _evaluation_dataset(run: RunConfig) -> NamedDataset | None:
    if run.spec.evaluation is None or run.spec.evaluation.dataset is None:
        return None
    return NamedDataset("spec.evaluation.dataset", run.spec.evaluation.dataset)


def _is_packed(run: RunConfig) -> bool:
    return run.spec.tokenization.packing is not Packing.NONE


def _sequences(run: RunConfig, rows: Sequence[StoredRow]) -> list[list[int]]:
    if not _is_packed(run):
        return [[index] for index in range(len(rows))]
    return pack([len(row.input_ids) for row in rows], longest_row(run.spec.tokenization.cutoff_len, packed=True))


def _divide(run: RunConfig, collections: Sequence[Collected]) -> tuple[list[StoredRow], list[StoredRow]]:
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
    return train, evaluation


def _split(count: int, evaluation: Evaluation, seed: int) -> tuple[Sequence[int], Sequence[int]]:
    field, share = ("rows", evaluation.rows) if evaluation.rows is not None else ("fraction", evaluation.fraction)
    try:
        return split_rows(count, evaluation.rows or float(evaluation.fraction or "0"), seed)
    except ValueError as error:
        raise StageFailure(
            ExitCode.INVALID_DATA,
            f"spec.evaluation.{field}: {share} of {count} rows leaves nothing to train or evaluate on ({error}).",
        ) from error
