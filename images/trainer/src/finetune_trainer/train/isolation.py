"""Proof, on the model at hand, that conversations that share a sequence do not see each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from finetune_operator.api.outcome import ExitCode, StageFailure

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LENGTH = 8
_LARGEST_DIFFERENCE = 1e-3
"""Of the largest logit. Attention that is masked adds exactly nothing, and a leak much more."""


def check_isolation(model: PreTrainedModel) -> None:
    """Raise StageFailure where changing one conversation of a sequence changes the logits of the next one.

    Architectures that carry state along the sequence, or build their own attention mask, do not know of positions that
    begin anew. Without this check they would be trained on mixed-up conversations, and nobody would notice.
    """
    first, other, second = torch.arange(1, 3 * _LENGTH + 1, device=model.device).chunk(3)
    trained = model.training
    model.eval()
    with torch.no_grad():
        before, after = (_logits_of_second(model, beginning, second) for beginning in (first, other))
    model.train(trained)
    if (before - after).abs().max() > _LARGEST_DIFFERENCE * before.abs().max():
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            f"tokenization.packing: {type(model).__name__} lets conversations that share a sequence see each other, expected "
            "none to; set packing to None.",
        )


def _logits_of_second(model: PreTrainedModel, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(_LENGTH, device=model.device).repeat(2)
    outputs = model(
        input_ids=torch.cat([first, second]).unsqueeze(0), position_ids=positions.unsqueeze(0), use_cache=False
    )
    logits: torch.Tensor = outputs.logits[0, _LENGTH:].float()
    return logits
