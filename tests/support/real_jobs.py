"""What tests/e2e applies: the jobs' namespace, models and data on claims, tiny forms of the examples, and a pod that asks."""

from __future__ import annotations

import json
from typing import Any

from finetune_devcluster.layout import project_root
from finetune_operator.api.manifest_yaml import load_all

Manifest = dict[str, Any]
ROOT = project_root()
TEAM, ASKERS = "team-a", "askers"
QWEN, YI = "qwen2-7b-lora", "yi-1-5-6b-identity"
"""The names that the tutorials' examples give their jobs."""
TUTORIAL_ROWS = 20

# Runs in the trainer's image, with tests/support/tiny_models.py beside it. 4-bit weights come in blocks of 64.
_MAKE_TUTORIAL_MODELS = """
import pathlib, sys
sys.path.insert(0, "/code")
from tiny_models import save_base
save_base(pathlib.Path("/models/Qwen2-7B-Instruct"), "qwen2", hidden_size=64, intermediate_size=128)
save_base(pathlib.Path("/models/Yi-1.5-6B-Chat"), "llama", hidden_size=64, intermediate_size=128)
rows = pathlib.Path("/rows/qwen_train_data.jsonl").read_text()
pathlib.Path("/datasets/qwen_train_data.jsonl").write_text(rows)
"""
_ASK = """
import json, sys, urllib.request
url, model, question = sys.argv[1:]
body = {"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 24, "temperature": 0}
request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
answer = json.load(urllib.request.urlopen(request, timeout=120))
print(json.dumps(answer["choices"][0]["message"]["content"]))
"""


def namespace(name: str) -> Manifest:
    """A namespace that lets in nothing but what Pod Security's strictest standard allows."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def deny_everything(name: str) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "default-deny", "namespace": name},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }


def hardened(pod: Manifest) -> Manifest:
    """The pod as `restricted` asks, with the group that its volumes are handed to."""
    pod["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in pod["containers"]:
        container["securityContext"] = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        container["volumeMounts"] = [*container.get("volumeMounts", []), {"name": "tmp", "mountPath": "/tmp"}]
    pod["volumes"] = [*pod.get("volumes", []), {"name": "tmp", "emptyDir": {}}]
    return pod


def tiny_model(image: str) -> list[Manifest]:
    """examples/demo/tiny-model.yaml under the trainer's image, which gets the module that it runs from a ConfigMap."""
    claim, job = load_all((ROOT / "examples/demo/tiny-model.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    container["image"] = image
    container["env"] = [{"name": "PYTHONPATH", "value": "/code"}]
    container["volumeMounts"].append({"name": "code", "mountPath": "/code/finetune_devcluster"})
    pod["volumes"].append({"name": "code", "configMap": {"name": "tiny-model-code"}})
    code = ROOT / "devcluster/src/finetune_devcluster/tiny_model.py"
    return [config_map("tiny-model-code", {"tiny_model.py": code.read_text()}), claim, job]


def tutorial_models(image: str) -> list[Manifest]:
    """A Job that puts both tutorials' models and the first one's rows onto the claims that their manifests name."""
    code = {"tiny_models.py": (ROOT / "tests/support/tiny_models.py").read_text(), "make.py": _MAKE_TUTORIAL_MODELS}
    row = (ROOT / "tests/unit/data/tutorials/qwen_train_data.jsonl").read_text()
    rows = "".join(row.replace("something", f"{number} things") for number in range(TUTORIAL_ROWS))
    claim = load_all((ROOT / "examples/demo/tiny-model.yaml").read_text())[0]
    datasets = {**claim, "metadata": {"name": "datasets"}}
    mounts = {"models": "/models", "datasets": "/datasets", "code": "/code", "rows": "/rows"}
    pod = {
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "make",
                "image": image,
                "command": ["python", "/code/make.py"],
                "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
            }
        ],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
            {"name": "datasets", "persistentVolumeClaim": {"claimName": "datasets"}},
            {"name": "code", "configMap": {"name": "tutorial-code"}},
            {"name": "rows", "configMap": {"name": "tutorial-rows"}},
        ],
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "make-tutorial-models"},
        "spec": {"backoffLimit": 0, "template": {"spec": hardened(pod)}},
    }
    maps = [config_map("tutorial-code", code), config_map("tutorial-rows", {"qwen_train_data.jsonl": rows})]
    return [*maps, claim, datasets, job]


def config_map(name: str, data: dict[str, str]) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def tutorial_job(example: str, model: str) -> Manifest:
    """An example as it is, but for a tiny model that is there, fewer and larger steps, and what a small machine has."""
    manifest: Manifest = load_all((ROOT / "examples" / example).read_text())[0]
    spec = manifest["spec"]
    spec["model"]["source"] = f"pvc://models/{model}"
    spec["training"] |= {"epochs": 1, "gradientAccumulationSteps": 4, "learningRate": "1e-2"}
    spec["logging"] = {"steps": 1}
    spec["resources"] = {"gpusPerNode": 1, "cpu": "500m", "memory": "3Gi"}
    spec["storage"] = {"size": "1Gi", "accessMode": "ReadWriteMany", "retention": "Delete"}
    # vLLM needs a GPU that is one; engine Transformers serves on the CPU.
    spec["serving"] |= {"gpus": 0, "cpu": "200m", "memory": "2Gi"}
    return manifest


def asking_pod(name: str, image: str, url: str, model: str, question: str) -> Manifest:
    """A pod that asks a served model once and prints the answer as a JSON string."""
    return script_pod(name, image, _ASK, f"{url}/chat/completions", model, question)


def script_pod(name: str, image: str, script: str, *arguments: str) -> Manifest:
    """A pod of the namespace of strangers, which is not the jobs', that runs a Python script once."""
    container = {"name": "ask", "image": image, "command": ["python", "-c", script, *arguments]}
    pod = hardened({"restartPolicy": "Never", "containers": [container]})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": ASKERS}, "spec": pod}


def as_list(manifests: list[Manifest]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
