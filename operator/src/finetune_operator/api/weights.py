"""Which names a model's index may give to its weights: prepare, and later the merge, read no others."""

from __future__ import annotations

import re

SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}\.safetensors")
"""A safetensors file beside the index: no path, no link that is hidden by its name, no pickle."""
