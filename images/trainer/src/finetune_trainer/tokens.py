"""``finetune-trainer tokens``: prints what the trainer would see of each run. Nothing stays behind."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_operator.api.outcome import ExitCode, StageFailure, classify
from finetune_operator.api.run import RunConfig, load_run
from finetune_operator.api.tokenization import Packing
from finetune_trainer.prepare.base_model import download_tokenizer, mounted_model
from finetune_trainer.prepare.compatibility import lines
from finetune_trainer.prepare.job_check import check_tokens
from finetune_trainer.prepare.job_template import set_up_tokenizer
from finetune_trainer.prepare.model_check import check_tokenizer
from finetune_trainer.prepare.readers import Place
from finetune_trainer.prepare.tally import LISTED
from finetune_trainer.prepare.tokenise import Tokenised, tokenise
from finetune_trainer.rendering import render
from finetune_trainer.sequences import IGNORED, sequence_ids, sequence_labels
from finetune_trainer.store import EVALUATION, TRAIN, RowStore, StoredRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class View:
    """What to print."""

    packed: bool
    """A line a sequence, as the job packs them, rather than a line a conversation."""
    rendered: bool
    """Text for people rather than JSON."""
    evaluation: bool
    """The rows that are held back as well."""
    coloured: bool
    """Show what is learnt in colour rather than between marks."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One line: a conversation, or the conversations of a sequence."""

    job: str
    input_ids: list[int]
    labels: list[int]
    source: str | list[str]
    is_evaluation: bool

    def as_json(self) -> str:
        line = {"job": self.job, "input_ids": self.input_ids, "labels": self.labels, "source": self.source}
        return json.dumps({**line, "evaluation": True} if self.is_evaluation else line, ensure_ascii=False)

    def as_text(self, tokenizer: PreTrainedTokenizerBase, *, coloured: bool) -> str:
        """A headline and the text, with special tokens."""
        places = self.source if isinstance(self.source, str) else ", ".join(self.source)
        text, learnt = render(tokenizer, self.input_ids, self.labels, coloured=coloured)
        held_back = ", held back" if self.is_evaluation else ""
        return f"# {self.job} {places}: {len(self.input_ids)} tokens, {learnt} learnt{held_back}\n{text}\n"


class Tokenizers:
    """Tokenizers of models, each set up once for all jobs that use it with the same template.

    Of a hub's model only configuration and tokenizer are fetched, into ``folder``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._downloaded: dict[str, Path] = {}
        self._loaded: dict[tuple[Path, str, bool], PreTrainedTokenizerBase] = {}

    def of(self, run: RunConfig) -> PreTrainedTokenizerBase:
        """The tokenizer as the trainer gets it. Raises StageFailure where it cannot be had."""
        # A template changes the tokenizer, so that two templates need two of them.
        rules = run.spec.tokenization
        key = (self._model_folder(run), rules.template, rules.is_llama_factory)
        if key not in self._loaded:
            tokenizer = check_tokenizer(key[0], run.spec)
            set_up_tokenizer(tokenizer, run)
            self._loaded[key] = tokenizer
        return self._loaded[key]

    def _model_folder(self, run: RunConfig) -> Path:
        mounted = mounted_model(run)
        if mounted is not None:
            return mounted.resolve()
        model = run.spec.model.model_dump_json()
        if model not in self._downloaded:
            self._downloaded[model] = download_tokenizer(run.model_copy(update={"root": str(self._folder)}))
        return self._downloaded[model]


def show_tokens(run_files: Sequence[Path], view: View) -> int:
    """Print the tokens of every run. A run that fails is told on stderr, and the others are printed all the same.

    Returns the exit code of the first that failed, or 0.
    """
    with tempfile.TemporaryDirectory(prefix="finetune-tokenizers-") as folder:
        tokenizers = Tokenizers(Path(folder))
        codes = [_attempt(file, partial(_show, file, tokenizers, view)) for file in run_files]
    return next((code for code in codes if code), ExitCode.DONE)


def _attempt(file: Path, show: Callable[[], None]) -> int:
    try:
        show()
    except StageFailure as failure:
        _complain("error", file.stem, failure.message)
        return failure.code
    except Exception as error:
        traceback.print_exc()
        _complain("error", file.stem, f"{type(error).__name__}: {error}")
        return classify(error)
    return ExitCode.DONE


def _show(file: Path, tokenizers: Tokenizers, view: View) -> None:
    run = load_run(file)
    output = sys.stdout
    # Libraries print what they like; stdout is for tokens alone.
    with contextlib.redirect_stdout(sys.stderr):
        tokenizer = check_tokens(run, partial(tokenizers.of, run))
        with tempfile.TemporaryDirectory(prefix="finetune-tokens-") as folder:
            made = tokenise(run, tokenizer, Path(folder))
            for shown in _lines(run, made, Path(folder), view, tokenizer.pad_token_id):
                text = shown.as_text(tokenizer, coloured=view.coloured) if view.rendered else shown.as_json()
                print(text, file=output)
    output.flush()
    _note_dropped(run, made)
    _note_compatibility(run, made)


def _lines(run: RunConfig, made: Tokenised, folder: Path, view: View, padding: int | None) -> Iterator[Shown]:
    yield from _part_lines(run, RowStore(folder / TRAIN), made.files, view, padding, is_evaluation=False)
    if view.evaluation and made.has_evaluation:
        yield from _part_lines(run, RowStore(folder / EVALUATION), made.files, view, padding, is_evaluation=True)


def _part_lines(
    run: RunConfig, store: RowStore, files: Sequence[str], view: View, padding: int | None, *, is_evaluation: bool
) -> Iterator[Shown]:
    for index in range(store.sequences if view.packed else store.rows):
        rows = list(store.sequence(index)) if view.packed else [store.row(index)]
        places = [str(_place(row, files)) for row in rows]
        ids, labels = _tokens(run, rows, padding if view.packed else None)
        yield Shown(
            job=run.name,
            input_ids=ids,
            labels=labels,
            source=places if view.packed else places[0],
            is_evaluation=is_evaluation,
        )


def _tokens(run: RunConfig, rows: Sequence[StoredRow], padding: int | None) -> tuple[list[int], list[int]]:
    """Ids and labels of rows that stand one after the other; ``padding`` fills up a sequence as LLaMA-Factory fills it."""
    rules = run.spec.tokenization
    if not rules.is_llama_factory:
        return sequence_ids(rows).tolist(), sequence_labels(rows, rules.packing).tolist()
    # It leaves a label on the first token of every conversation, which nothing is predicted from.
    ids, labels = sequence_ids(rows).tolist(), sequence_labels(rows, Packing.NONE).tolist()
    if padding is None or rules.packing is Packing.NONE:
        return ids, labels
    missing = rules.cutoff_len - len(ids)
    return ids + [padding] * missing, labels + [IGNORED] * missing


def _place(row: StoredRow, files: Sequence[str]) -> Place:
    is_line = row.number >= 0
    return Place(files[row.file], row.number if is_line else -row.number - 1, is_line)


def _note_dropped(run: RunConfig, made: Tokenised) -> None:
    dropped: list[str] = made.report["droppedRows"]
    for row in dropped[:LISTED]:
        _complain("note", run.name, f"left out: {row}")
    if made.report["dropped"] > LISTED:
        _complain("note", run.name, f"left out: {made.report['dropped'] - LISTED} more rows")


def _note_compatibility(run: RunConfig, made: Tokenised) -> None:
    for line in lines(made.report.get("compatibility", {})):
        _complain("note", run.name, line)


def _complain(kind: str, job: str, message: str) -> None:
    for line in message.splitlines():
        print(f"{kind}: {job}: {line}", file=sys.stderr, flush=True)
