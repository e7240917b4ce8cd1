"""Manifests that must be refused, each with the field that the refusal has to name. Used against the API server and locally."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]


def valid_manifest(name: str = "job", method: str = "LoRA") -> Manifest:
    """The smallest manifest that is accepted."""
    return {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"source": "hf://Qwen/Qwen2-7B-Instruct"},
            "datasets": [{"source": "pvc://datasets/chat.jsonl"}],
            "method": method,
        },
    }


def changed(manifest: Manifest, path: str, value: Any) -> Manifest:
    """A copy with the field at a dotted path set; a number steps into a list."""
    result = copy.deepcopy(manifest)
    *parents, last = path.split(".")
    node: Any = result
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
    node[int(last) if isinstance(node, list) else last] = value
    return result


@dataclass(frozen=True, slots=True)
class Wrong:
    """One wrong manifest: what is set, and the field that the refusal names."""

    case: str
    path: str
    value: Any
    names: str
    method: str = "LoRA"
    also: tuple[tuple[str, Any], ...] = ()

    @property
    def manifest(self) -> Manifest:
        manifest = valid_manifest(method=self.method)
        for path, value in ((self.path, self.value), *self.also):
            manifest = changed(manifest, path, value)
        return manifest


WRONG = (
    Wrong("a misspelt field", "spec.trainning", {"epochs": 3}, "trainning"),
    Wrong("a misspelt nested field", "spec.training.learning_rate", "1e-4", "learning_rate"),
    Wrong("a method in lower case", "spec.method", "lora", "spec.method"),
    Wrong("a LoRA block with method Full", "spec.lora", {"rank": 8}, "spec.lora", method="Full"),
    Wrong("a quantization block with method LoRA", "spec.quantization", {"bits": 4}, "spec.quantization"),
    Wrong("epochs together with maxSteps", "spec.training", {"epochs": 3, "maxSteps": 100}, "spec.training.maxSteps"),
    Wrong("fp16 together with bf16", "spec.training", {"fp16": True, "bf16": True}, "fp16"),
    Wrong("a precision that does not exist", "spec.training.precision", "FP64", "spec.training.precision"),
    Wrong("a negative learning rate", "spec.training.learningRate", "-1e-4", "spec.training.learningRate"),
    Wrong("a learning rate of zero", "spec.training.learningRate", "0", "spec.training.learningRate"),
    Wrong("a learning rate that is a bare number", "spec.training.learningRate", 0.0001, "spec.training.learningRate"),
    Wrong("an adapter with method Full", "spec.adapter", {"source": "hf://a/b"}, "spec.adapter", method="Full"),
    Wrong("an adapter on this machine", "spec.adapter", {"source": "ftp://a/b"}, "spec.adapter.source"),
    Wrong("a restart count of another schedule", "spec.training", {"schedulerOptions": {"cycles": 2}}, "cycles"),
    Wrong("a power of another schedule", "spec.training", {"schedulerOptions": {"power": "2"}}, "power"),
    Wrong(
        "two ends of a schedule",
        "spec.training",
        {
            "scheduler": "CosineWithMinLR",
            "schedulerOptions": {"minLearningRate": "1e-6", "minLearningRateRatio": "0.1"},
        },
        "minLearningRateRatio",
    ),
    Wrong(
        "a schedule that ends above its begin",
        "spec.training",
        {"scheduler": "Polynomial", "schedulerOptions": {"minLearningRate": "1e-3"}},
        "minLearningRate",
    ),
    Wrong("a beta of one", "spec.training.adam", {"beta2": "1"}, "beta2"),
    Wrong("adam with SGD", "spec.training", {"optimizer": "SGD", "adam": {}}, "adam"),
    Wrong("label smoothing of everything", "spec.training.labelSmoothing", "1", "labelSmoothing"),
    Wrong("weights to choose that were never quantised", "spec.merge.quantizedBase", "Original", "quantizedBase"),
    Wrong("a merge on two GPUs", "spec.merge.gpus", 2, "merge.gpus"),
    Wrong("LoRA+ of a full tune", "spec.training.loraPlusRatio", "16", "loraPlusRatio", method="Full"),
    Wrong("LoRA+ that stands still", "spec.training.loraPlusRatio", "0", "loraPlusRatio"),
    Wrong(
        "rows by length in their own order", "spec.training", {"groupByLength": True, "shuffle": False}, "groupByLength"
    ),
    Wrong(
        "a best checkpoint that is not measured",
        "spec.evaluation",
        {"rows": 5, "loadBest": True, "steps": 30},
        "loadBest",
    ),
    Wrong(
        "the best of one at the end", "spec.evaluation", {"rows": 5, "loadBest": True, "interval": "End"}, "loadBest"
    ),
    Wrong("a system prompt without words", "spec.tokenization.defaultSystem", "", "spec.tokenization.defaultSystem"),
    Wrong("a learning rate above one", "spec.training.learningRate", "10", "spec.training.learningRate"),
    Wrong("no epochs at all", "spec.training.epochs", 0, "spec.training.epochs"),
    Wrong("zero steps", "spec.training.maxSteps", 0, "spec.training.maxSteps"),
    Wrong(
        "warmupRatio together with warmupSteps",
        "spec.training",
        {"warmupRatio": "0.1", "warmupSteps": 5},
        "warmupSteps",
    ),
    Wrong("a rank of zero", "spec.lora.rank", 0, "spec.lora.rank"),
    Wrong("a negative alpha", "spec.lora.alpha", -16, "spec.lora.alpha"),
    Wrong("a dropout of one", "spec.lora.dropout", "1", "spec.lora.dropout"),
    Wrong("three-bit weights", "spec.quantization", {"bits": 3}, "spec.quantization.bits", method="QLoRA"),
    Wrong("five-bit weights", "spec.quantization", {"bits": 5}, "spec.quantization.bits", method="QLoRA"),
    Wrong("no dataset", "spec.datasets", [], "spec.datasets"),
    Wrong("a dataset without a source", "spec.datasets.0", {"format": "Alpaca"}, "spec.datasets[0].source"),
    Wrong("a URL as a model", "spec.model.source", "https://169.254.169.254/latest", "spec.model.source"),
    Wrong("an image of the metadata service", "spec.model.source", "oci://169.254.169.254/x", "spec.model.source"),
    Wrong("a revision that climbs", "spec.model.revision", "../../other", "spec.model.revision"),
    Wrong(
        "a tracker at the metadata service",
        "spec.tracking.mlflow",
        {"trackingUri": "http://169.254.169.254", "experiment": "e"},
        "spec.tracking.mlflow.trackingUri",
    ),
    Wrong(
        "a tracker behind a number",
        "spec.tracking.wandb",
        {"project": "p", "apiKeySecret": {"name": "w"}, "baseUrl": "http://2852039166/"},
        "spec.tracking.wandb.baseUrl",
    ),
    Wrong("an upload that climbs", "spec.merge.push", {"target": "hf://../x"}, "spec.merge.push.target"),
    Wrong(
        "a priority of the cluster's own",
        "spec.resources.priorityClassName",
        "system-node-critical",
        "spec.resources.priorityClassName",
    ),
    *(
        Wrong(f"a toleration {what}", "spec.resources.tolerations", [wanted], f"spec.resources.tolerations[0]{field}")
        for what, wanted, field in [
            ("of no taint", {"value": "a"}, ".operator"),
            ("that compares with nothing", {"key": "gpu", "operator": "Exists", "value": "a"}, ".value"),
            (
                "for a time of what is for ever",
                {"key": "gpu", "value": "a", "tolerationSeconds": 5},
                ".tolerationSeconds",
            ),
            ("of a key that no taint has", {"key": "gpu!", "value": "a"}, ".key"),
            ("of a value that no taint has", {"key": "gpu", "value": "a b"}, ".value"),
        ]
    ),
    Wrong(
        "a DeepSpeed configuration that is an object", "spec.deepspeed", {"config": {"a": 1}}, "spec.deepspeed.config"
    ),
    Wrong("a DeepSpeed configuration that is a list", "spec.deepspeed", {"config": "[1]"}, "spec.deepspeed.config"),
    Wrong("a path that climbs out of its claim", "spec.model.source", "pvc://models/../../etc", "spec.model.source"),
    Wrong("a claim of another namespace", "spec.model.source", "pvc://other:models/qwen", "spec.model.source"),
    Wrong(
        "a namespace smuggled into a secret reference",
        "spec.model.tokenSecret",
        {"name": "hub", "namespace": "kube-system"},
        "namespace",
    ),
    Wrong(
        "a secret name with a slash",
        "spec.model.tokenSecret",
        {"name": "kube-system/hub"},
        "spec.model.tokenSecret.name",
    ),
    Wrong("a name that is too long", "metadata.name", "n" * 41, "metadata.name"),
    Wrong("a name that begins with a digit", "metadata.name", "7b-lora", "metadata.name"),
    Wrong("half a GPU", "spec.resources.gpusPerNode", 0.5, "spec.resources.gpusPerNode"),
    Wrong("a memory size that is no quantity", "spec.resources.memory", "lots", "spec.resources.memory"),
    Wrong("several nodes without GPUs", "spec.resources", {"nodes": 2, "gpusPerNode": 0}, "gpusPerNode"),
    Wrong("several nodes on storage for one", "spec.resources.nodes", 2, "accessMode"),
    Wrong(
        "trainOnPrompt with maskHistory",
        "spec.tokenization",
        {"trainOnPrompt": True, "maskHistory": True},
        "maskHistory",
    ),
    Wrong("a cutoff of no tokens", "spec.tokenization.cutoffLen", 0, "spec.tokenization.cutoffLen"),
    Wrong(
        "an evaluation fraction and dataset",
        "spec.evaluation",
        {"fraction": "0.1", "dataset": {"source": "hf://a/b"}},
        "fraction",
    ),
    Wrong("an evaluation fraction and rows", "spec.evaluation", {"fraction": "0.1", "rows": 10}, "fraction"),
    Wrong("an evaluation on nothing", "spec.evaluation", {"steps": 10}, "fraction"),
    Wrong("an evaluation of no rows", "spec.evaluation", {"rows": 0}, "spec.evaluation.rows"),
    Wrong("an evaluation of everything", "spec.evaluation", {"fraction": "1"}, "spec.evaluation.fraction"),
    Wrong(
        "parameters offloaded at stage 2",
        "spec.deepspeed",
        {"stage": 2, "offloadParameters": "CPU"},
        "offloadParameters",
    ),
    Wrong(
        "8-bit weights with stage 3",
        "spec.quantization.bits",
        8,
        "spec.deepspeed",
        "QLoRA",
        (("spec.deepspeed.stage", 3),),
    ),
    Wrong("adapter serving of a full tune", "spec.serving.mode", "Adapter", "spec.serving.mode", method="Full"),
    Wrong(
        "serving a merge that is switched off",
        "spec.serving",
        {},
        "spec.serving.mode",
        also=(("spec.merge.enabled", False),),
    ),
    Wrong("a claim together with a size", "spec.storage", {"claim": "work", "size": "10Gi"}, "spec.storage.claim"),
    Wrong("tags with format Messages", "spec.datasets.0.tags", {"user": "human"}, "tags"),
    Wrong("a service account", "spec.serviceAccountName", "admin", "serviceAccountName"),
    Wrong("a pod template", "spec.template", {"spec": {"hostPID": True}}, "template"),
    Wrong("a shard size in bytes", "spec.merge.maxShardSize", "5", "spec.merge.maxShardSize"),
    Wrong("early stopping without evaluation", "spec.training.earlyStoppingPatience", 2, "earlyStoppingPatience"),
    Wrong("an immoderate number of GPUs", "spec.resources.gpusPerNode", 65, "spec.resources.gpusPerNode"),
)
