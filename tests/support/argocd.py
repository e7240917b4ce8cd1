"""ArgoCD's side of things: its scripts under a real Lua 5.1, its own dialect, with only the functions that it gives to scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from lupa.lua51 import LuaRuntime, lua_type

from chart import helm
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


def applications(folder: Path) -> list[Manifest]:
    """What the example ApplicationSet makes, by the templates of a real Helm: both use Go's and Sprig's."""
    made = yaml.safe_load((FOLDER / "applicationset.yaml").read_text())["spec"]
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: applications\nversion: 0.1.0\n")
    parts = (yaml.safe_dump(made["template"]), made["templatePatch"])
    template = "\n---\n".join(f"{{{{- with .Values.element }}}}\n{part}\n{{{{- end }}}}" for part in parts)
    (folder / "templates" / "application.yaml").write_text(template)
    return [_application(folder, element) for element in made["generators"][0]["list"]["elements"]]


def _application(folder: Path, element: Manifest) -> Manifest:
    done = helm("template", folder, "--set-json", f"element={json.dumps(element)}")
    assert done.returncode == 0, done.stderr
    template, patch = yaml.safe_load_all(done.stdout)
    made = _merged({"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", **template}, patch)
    made["metadata"]["namespace"] = "argocd"
    return made


def _merged(base: Manifest, patch: Manifest) -> Manifest:
    both = {key: _merged(base[key], patch[key]) for key in base.keys() & patch.keys() if isinstance(patch[key], dict)}
    return {**base, **patch, **both}


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


def predicted_by_kubectl(cluster: Cluster, manifest: Manifest) -> Manifest:
    """The live object as `kubectl apply` on the client would leave it, as ArgoCD does without ServerSideApply=true."""
    command = ("apply", "--dry-run=server", "--output=json", "-f", "-")
    done = cluster.kubectl(*command, input=json.dumps(manifest))
    assert done.returncode == 0, done.stderr
    found: Manifest = json.loads(done.stdout)
    del found["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    return found
