"""``finetune resume``: let a suspended job go on."""

from __future__ import annotations

import argparse

from finetune_operator.cli.commands.suspend import configure, set_suspend

__all__ = ["configure", "execute"]


def execute(arguments: argparse.Namespace) -> int:
    set_suspend(arguments, False)
    print(f"{arguments.name}: resumed; `finetune status {arguments.name}` shows how far it is")
    return 0
