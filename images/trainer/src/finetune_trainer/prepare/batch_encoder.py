"""From rows as they were read to tokens and labels, a batch at a time: what the worker processes do."""

from __future__ import annotations

import hashlib
import pickle
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune_operator.api.dataset import Dataset, Format
from finetune_operator.api.run import RunConfig
from finetune_operator.api.tokenization import Packing, Tokenization
from finetune_trainer.prepare.batches import EncodedBatch, Note, Verdict
from finetune_trainer.prepare.compatibility import Fault, without_thinking
from finetune_trainer.prepare.conversation import Conversation, MisorderedRow, RowError, UnreadSystem
from finetune_trainer.prepare.encoders import EncodedTurn, Encoder, UnstableTemplate
from finetune_trainer.prepare.job_datasets import datasets_of
from finetune_trainer.prepare.job_template import encoder_of, header_of, template_of
from finetune_trainer.prepare.labels import label_turns
from finetune_trainer.prepare.layouts import conversation_of, refuse_unread_tools
from finetune_trainer.prepare.packing import longest_row
from finetune_trainer.prepare.row_checks import SpecialTokens, refuse_empty_answers
from finetune_trainer.prepare.tool_messages import with_read_arguments
from finetune_trainer.sequences import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Rules:
    """How rows become tokens in this job."""

    tokenization: Tokenization
    longest: int
    """Longest conversation, in tokens."""
    drops_misordered: bool
    """Leave out rows whose turns are out of order, as LLaMA-Factory does, rather than refuse them."""
    closing: int | None = None
    """Token after the last turn of every row, where the template has one."""
    header: tuple[int, ...] = ()
    """Tokens that open an answer, which a prompt that is cut keeps; none under LLaMA-Factory's rules."""
    adds_system: bool = False
    """The template puts in a system prompt where a row has none."""


@dataclass(slots=True)
class _Sheet:
    """What is being made of a batch."""

    lengths: NDArray[np.int32]
    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    truncated: int = 0
    notes: list[Note] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def note(self, index: int, verdict: Verdict, text: object) -> None:
        self.notes.append(Note(index, verdict, str(text)))

    def finished(self) -> EncodedBatch:
        input_ids, labels = np.array(self.input_ids, dtype=np.int32), np.array(self.labels, dtype=np.int32)
        ends = np.cumsum(self.lengths)
        learnt = np.concatenate([[0], np.cumsum(labels != IGNORED)])
        trained = learnt[ends] - learnt[ends - self.lengths]
        text = memoryview(input_ids.tobytes())
        spans = zip((ends - self.lengths).tolist(), ends.tolist(), strict=True)
        hashes = np.array([_identity(text[4 * start : 4 * end]) for start, end in spans], dtype=np.uint64)
        self.notes.sort(key=lambda note: note.index)
        return EncodedBatch(
            input_ids,
            labels,
            self.lengths,
            trained.astype(np.int32),
            hashes,
            self.truncated,
            self.notes,
            dict(self.faults),
        )


def _identity(tokens: memoryview) -> int:
    """64 bits: of 3 million different rows, two are taken for equal with a chance of 1 in 4 million."""
    return int.from_bytes(hashlib.blake2b(tokens, digest_size=8).digest(), "little")


class BatchEncoder:
    """Checks and encodes batches. What is wrong with a row is noted, not raised, so that one pass tells all of it."""

    def __init__(self, datasets: Sequence[Dataset], encoder: Encoder, rules: Rules, special: SpecialTokens) -> None:
        self._datasets = datasets
        self._special = special
        self._encoder = encoder
        self._rules = rules

    @classmethod
    def of(cls, run: RunConfig, tokenizer: PreTrainedTokenizerBase) -> BatchEncoder:
        """The encoder of a job, with its tokenizer set up."""
        template, rules = template_of(run, tokenizer), run.spec.tokenization
        closing = tokenizer.eos_token_id if template is not None and template.ends_once else None
        longest = longest_row(rules.cutoff_len, packed=rules.packing is not Packing.NONE)
        drops_misordered = template is not None or rules.is_llama_factory
        return cls(
            [named.dataset for named in datasets_of(run)],
            encoder_of(run, tokenizer, template),
            Rules(
                rules,
                longest,
                drops_misordered,
                closing,
                header=() if rules.is_llama_factory else tuple(header_of(tokenizer, template)),
                adds_system=template is not None and bool(template.default_system),
            ),
            SpecialTokens(tokenizer),
        )

    def encode(self, dataset: int, rows: Sequence[bytes]) -> EncodedBatch:
        """Encode pickled rows of one of the datasets."""
        sheet = _Sheet(np.zeros(len(rows), dtype=np.int32))
        conversations: dict[int, Conversation] = {}
        for index, packed in enumerate(rows):
            try:
                # Pickled by this program a moment ago.
                value, problem = pickle.loads(packed)  # noqa: S301 # nosec B301
                conversations[index] = self._parse(self._datasets[dataset], value, problem, sheet)
            except RowError as error:
                dropped = isinstance(error, MisorderedRow) and self._rules.drops_misordered
                if dropped:
                    sheet.faults[Fault.UNREAD_SYSTEM if isinstance(error, UnreadSystem) else Fault.OUT_OF_ORDER] += 1
                sheet.note(index, Verdict.DROPPED if dropped else Verdict.FAULTY, error)
        for index, conversation in conversations.items():
            if (token := self._special.found_in(conversation)) is not None:
                sheet.note(index, Verdict.SUSPECT, token)
        encoded = self._encoder.encode(list(conversations.values()))
        for index, turns in zip(conversations, encoded, strict=True):
            self._label(sheet, index, turns)
        return sheet.finished()

    def _parse(self, dataset: Dataset, value: Any, problem: str | None, sheet: _Sheet) -> Conversation:
        if problem is not None:
            raise RowError(problem)
        conversation = conversation_of(value, dataset)
        if not self._rules.tokenization.is_llama_factory:
            refuse_unread_tools(value, dataset)
            refuse_empty_answers(conversation)
            return with_read_arguments(conversation) if dataset.format is Format.MESSAGES else conversation
        if dataset.format is Format.MESSAGES:
            opened, conversation = conversation, without_thinking(conversation)
            sheet.faults[Fault.THINKING_OFF] += conversation is not opened
        sheet.faults[Fault.ADDED_SYSTEM] += self._rules.adds_system and not conversation.system
        return conversation

    def _label(self, sheet: _Sheet, index: int, turns: list[EncodedTurn] | RowError) -> None:
        if isinstance(turns, RowError):
            sheet.note(index, Verdict.HOPELESS if isinstance(turns, UnstableTemplate) else Verdict.FAULTY, turns)
            return
        rules = self._rules
        example = label_turns(turns, rules.tokenization, rules.longest, rules.closing, rules.header)
        whole = sum(len(prompt) + len(answer) for prompt, answer in turns) + (rules.closing is not None)
        if example.trained == 0 and not rules.tokenization.is_llama_factory:
            limit = rules.tokenization.cutoff_len
            sheet.note(index, Verdict.DROPPED, f"none of its {whole} tokens is left to learn within cutoffLen {limit}")
            return
        sheet.truncated += whole > len(example.input_ids)
        sheet.faults[Fault.CUT_PROMPTS] += example.lost_header
        sheet.faults[Fault.CUT_ANSWERS] += example.lost_end
        sheet.faults[Fault.UNLEARNT] += example.trained == 0
        sheet.lengths[index] = len(example.input_ids)
        sheet.input_ids += example.input_ids
        sheet.labels += example.labels
