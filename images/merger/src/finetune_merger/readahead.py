"""Reading the base model into the page cache while Python imports and a GPU is started."""

from __future__ import annotations

import threading
from pathlib import Path

_PIECE = 4 << 20
_MOST = 6 << 30
"""Bytes read ahead: about what a disk gives in the seconds that this takes. Memory that is short loses the first of them
before they are used."""


def read_ahead(folder: Path) -> None:
    """Begin to read the folder's weights, in the order of their files, in a thread of its own."""
    threading.Thread(target=_read, args=(folder,), daemon=True).start()


def _read(folder: Path) -> None:
    left, piece = _MOST, bytearray(_PIECE)
    for path in sorted(folder.glob("*.safetensors")):
        try:
            # Read rather than announced to the kernel, which would have the imports wait for all that it then reads.
            with path.open("rb", buffering=0) as file:
                while left > 0 and (count := file.readinto(piece)):
                    left -= count
        except OSError:
            return  # whoever reads it for its content says what is wrong
