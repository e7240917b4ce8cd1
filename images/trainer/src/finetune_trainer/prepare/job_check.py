"""Everything that can be said against a job before its rows are tokenised, in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from finetune_operator.api.run import RunConfig
from finetune_trainer.estimate.prepared import refuse_too_large
from finetune_trainer.prepare.adapter_check import provide_adapter
from finetune_trainer.prepare.base_model import fetch_base_model
from finetune_trainer.prepare.conversation import MisorderedRow, RowError
from finetune_trainer.prepare.job_datasets import datasets_of
from finetune_trainer.prepare.job_template import set_up_tokenizer
from finetune_trainer.prepare.layouts import conversation_of, refuse_unread_tools
from finetune_trainer.prepare.model_check import inspect_model, refuse_new_tokens
from finetune_trainer.prepare.problems import Problems
from finetune_trainer.prepare.row_checks import refuse_empty_answers
from finetune_trainer.prepare.rows import Row
from finetune_trainer.prepare.sources import NamedDataset, local_path, rows_of
from finetune_trainer.prepare.support import check_supported
from finetune_trainer.prepare.tally import Tally, refuse_faults
from finetune_trainer.templates import AUTO

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_job(run: RunConfig, problems: Problems) -> PreTrainedTokenizerBase:
    """Fetch the base model and check it and the spec; returns the tokenizer, set up for the job's template.

    Raises StageFailure with all that is wrong, ``problems`` found earlier included. The rows of mounted datasets are
    read for that as well; what is on a hub is not downloaded for a job that cannot run.
    """
    with problems.gathered():
        check_supported(run)
    tokenizer = None
    with problems.gathered():
        # Without a volume of its own, even looking at the model means to download it.
        if not problems or local_path(run, run.spec.model.source, "spec.model") is not None:
            tokenizer = _check_model(run, problems)
    with problems.gathered():
        if tokenizer is not None:
            provide_adapter(run)
    if problems or tokenizer is None:
        _check_rows(run, problems)
        problems.refuse(run.paths.report)
    assert tokenizer is not None, "no tokenizer and no problem"  # noqa: S101 - told apart for the type checker
    return tokenizer


def check_tokens(run: RunConfig, tokenizer_of: Callable[[], PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    """Like ``check_job``, for a look at the tokens: of the model only its tokenizer is there, and no report is left."""
    problems, tokenizer = Problems(), None
    with problems.gathered():
        check_supported(run)
    with problems.gathered():
        tokenizer = tokenizer_of()
    if problems or tokenizer is None:
        _check_rows(run, problems)
        problems.refuse(None)
    assert tokenizer is not None, "no tokenizer and no problem"  # noqa: S101 - told apart for the type checker
    return tokenizer


def _check_model(run: RunConfig, problems: Problems) -> PreTrainedTokenizerBase | None:
    folder = fetch_base_model(run)
    print(f"prepare: base model at {folder}", flush=True)
    tokenizer, failure = inspect_model(folder, run.spec)
    if failure is not None:
        problems.keep(failure)
    # The model's own template may be what is at fault.
    if tokenizer is not None and (failure is None or run.spec.tokenization.template != AUTO):
        set_up_tokenizer(tokenizer, run)
        if failure is None:
            refuse_new_tokens(tokenizer, folder, run.spec)
            refuse_too_large(run, folder)
    return tokenizer


def _check_rows(run: RunConfig, problems: Problems) -> None:
    tallies = []
    for named in datasets_of(run):
        with problems.gathered():
            if local_path(run, named.dataset.source, named.field) is not None:
                tallies.append(_checked(run, named))
    with problems.gathered():
        refuse_faults(tallies)


def _checked(run: RunConfig, named: NamedDataset) -> Tally:
    rules = run.spec.tokenization
    drops_misordered = rules.template != AUTO or rules.is_llama_factory
    tally = Tally(named.field, named.dataset.source)
    for row in rows_of(run, named):
        tally.read += 1
        try:
            _check_row(row, named, lenient=rules.is_llama_factory)
        except RowError as error:
            if not (isinstance(error, MisorderedRow) and drops_misordered):
                tally.faults.add(f"{row.place}: {error}")
    return tally


def _check_row(row: Row, named: NamedDataset, *, lenient: bool) -> None:
    if row.problem is not None:
        raise RowError(row.problem)
    conversation = conversation_of(row.value, named.dataset)
    if not lenient:
        refuse_unread_tools(row.value, named.dataset)
        refuse_empty_answers(conversation)
