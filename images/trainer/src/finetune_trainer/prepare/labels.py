"""Cutting a conversation to the longest allowed sequence, and which of its tokens are learnt.

Rules of LLaMA-Factory 0.9.5, ``data/processor/supervised.py`` and ``processor_utils.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune_operator.api.tokenization import Tokenization
from finetune_trainer.prepare.encoders import EncodedTurn
from finetune_trainer.sequences import IGNORED


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation as the trainer sees it: two lists of the same length."""

    input_ids: list[int]
    labels: list[int]
    lost_header: bool = False
    """A prompt was cut before the words that open its answer."""
    lost_end: bool = False
    """An answer was cut before the token that ends it."""

    @property
    def trained(self) -> int:
        """Tokens that are learnt."""
        return len(self.labels) - self.labels.count(IGNORED)


def share_budget(prompt: int, answer: int, budget: int) -> tuple[int, int]:
    """Lengths that a turn's prompt and answer keep, their heads, when both together may have ``budget`` tokens."""
    if answer * 2 < budget:
        most_answer = budget
    elif prompt * 2 < budget:
        most_answer = budget - prompt
    else:
        # The division comes first, as in the original: another order rounds otherwise now and then.
        most_answer = int(budget * (answer / (prompt + answer)))
    kept_answer = min(most_answer, answer)
    return min(max(budget - kept_answer, 0), prompt), kept_answer


def cut_prompt(prompt: list[int], kept: int, header: Sequence[int]) -> list[int]:
    """``kept`` tokens of a prompt: its head, and its ``header`` too where it ends in one."""
    if kept < len(prompt) and 0 < len(header) < kept and prompt[-len(header) :] == list(header):
        return prompt[: kept - len(header)] + list(header)
    return prompt[:kept]


def label_turns(
    turns: Sequence[EncodedTurn],
    tokenization: Tokenization,
    longest: int,
    closing: int | None = None,
    header: Sequence[int] = (),
) -> Example:
    """Cut turn by turn to ``longest`` tokens and label them. With maskHistory the last turns are kept first.

    A prompt that is cut keeps ``header``, the tokens that open the answer. An answer that is cut does not keep its
    terminator, as that would teach to stop in the middle.

    ``closing`` is the token that ends a conversation whose template ``ends_once``: it stands after the last turn, and
    is what the first token of every other prompt is labelled with.
    """
    newest_first = tokenization.mask_history
    parts: list[Example] = []
    lost_header = lost_end = False
    total = 0 if closing is None else 1
    for number, (prompt, answer) in enumerate(reversed(turns) if newest_first else turns):
        if total >= longest:
            break
        kept_prompt, kept_answer = share_budget(len(prompt), len(answer), longest - total)
        total += kept_prompt + kept_answer
        lost_end |= kept_answer < len(answer)
        lost_header |= kept_prompt < len(prompt)
        prompt, answer = cut_prompt(prompt, kept_prompt, header), answer[:kept_answer]
        prompt_labels = list(prompt) if tokenization.train_on_prompt else [IGNORED] * kept_prompt
        if closing is not None and number and kept_prompt:
            prompt_labels[0] = closing
        answer_labels = [IGNORED] * kept_answer if newest_first and number else answer
        parts.append(Example(prompt + answer, prompt_labels + answer_labels))
    if newest_first:
        parts.reverse()
    end = [] if closing is None else [closing]
    return Example(
        [token for part in parts for token in part.input_ids] + end,
        [label for part in parts for label in part.labels] + end,
        lost_header,
        lost_end,
    )
