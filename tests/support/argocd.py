"""ArgoCD's side of things: its health script under a real Lua 5.1, its own dialect, with only the functions that it gives to scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime

from finetune_devcluster import Cluster

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "argocd"
CUSTOMIZATION = FOLDER / "resource_customizations" / "finetune-operator.io" / "FineTuneJob"
SCRIPT = (CUSTOMIZATION / "health.lua").read_text()
AS_ARGOCD = ("--server-side", "--force-conflicts", "--field-manager=argocd-controller")
Manifest = dict[str, Any]


def health(job: Manifest) -> dict[str, str]:
    """The script's verdict: status and message."""
    lua = LuaRuntime()
    for name in list(lua.globals()):
        if name not in ("pairs", "ipairs", "type", "tostring", "table"):
            lua.globals()[name] = None
    lua.globals()["obj"] = lua.table_from(job, recursive=True)
    return dict(lua.execute(SCRIPT))


def sync(cluster: Cluster, manifest: Manifest) -> None:
    """Apply as ArgoCD's sync does with ServerSideApply=true."""
    done = cluster.kubectl("apply", *AS_ARGOCD, "-f", "-", input=json.dumps(manifest))
    assert done.returncode == 0, done.stderr


def predicted(cluster: Cluster, manifest: Manifest) -> Manifest:
    """The live object as a sync would leave it, by which ArgoCD's server-side diff judges."""
    command = ("apply", *AS_ARGOCD, "--dry-run=server", "--show-managed-fields", "--output=json", "-f", "-")
    done = cluster.kubectl(*command, input=json.dumps(manifest))
    assert done.returncode == 0, done.stderr
    found: Manifest = json.loads(done.stdout)
    return found
