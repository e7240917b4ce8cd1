"""Code that leaves a mark where it runs, in every wrapping that somebody might load."""

from __future__ import annotations

import io
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class _Bomb:
    """Makes a folder when it is unpickled."""

    mark: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


class Payload:
    """One piece of code; ``ran`` tells whether anything has run it."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "the-payload-ran"

    @property
    def ran(self) -> bool:
        return self.mark.exists()

    @property
    def as_pickle(self) -> bytes:
        return pickle.dumps(_Bomb(self.mark))

    @property
    def as_torch_file(self) -> bytes:
        """As torch.save writes it: a zip archive with a pickle."""
        return _torch_file({"model.embed_tokens.weight": _Bomb(self.mark)})

    @property
    def as_numpy_file(self) -> bytes:
        """An array of objects."""
        file = io.BytesIO()
        np.save(file, np.array([_Bomb(self.mark)], dtype=object), allow_pickle=True)
        return file.getvalue()

    @property
    def as_python(self) -> str:
        return f"import os\nos.mkdir({str(self.mark)!r})\n"


def _torch_file(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()
