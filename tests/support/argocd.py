"""ArgoCD's side of things: its scripts under a real Lua 5.1, its own dialect, with only the functions that it gives to scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lupa.lua51 import LuaRuntime, lua_type

from finetune_devcluster import Cluster

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "argocd"
CUSTOMIZATION = FOLDER / "resource_customizations" / "finetune-operator.io" / "FineTuneJob"
SCRIPT = (CUSTOMIZATION / "health.lua").read_text()
AS_ARGOCD = ("--server-side", "--force-conflicts", "--field-manager=argocd-controller")
Manifest = dict[str, Any]


def health(job: Manifest) -> dict[str, str]:
    """The script's verdict: status and message."""
    return dict(_run(SCRIPT, job))


def actions(job: Manifest) -> dict[str, dict[str, str]]:
    """What ArgoCD offers to do with a job: icon and the like, by the name of the action."""
    return {name: dict(shown) for name, shown in _run(action_script("discovery.lua"), job).items()}


def acted(job: Manifest, action: str) -> Manifest:
    """The job as an action leaves it. Only its spec is turned back into Python: Lua knows no empty list."""
    spec: Manifest = _plain(_run(action_script(f"{action}/action.lua"), job)["spec"])
    return {**job, "spec": spec}


def action_script(path: str) -> str:
    return (CUSTOMIZATION / "actions" / path).read_text()


def _run(script: str, job: Manifest) -> Any:
    lua = LuaRuntime()
    for name in list(lua.globals()):
        if name not in ("pairs", "ipairs", "type", "tostring", "table"):
            lua.globals()[name] = None
    lua.globals()["obj"] = lua.table_from(job, recursive=True)
    return lua.execute(script)


def _plain(value: Any) -> Any:
    """A Lua table as a dict, or as a list where its keys count from 1."""
    if lua_type(value) != "table":
        return value
    keys = list(value)
    if keys == list(range(1, len(keys) + 1)):
        return [_plain(value[key]) for key in keys]
    return {key: _plain(value[key]) for key in keys}


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
