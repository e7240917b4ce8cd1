"""The CustomResourceDefinition, generated from the models: `python -m finetune_operator.api.crd FILE...` writes it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from finetune_operator.api.base import GROUP, KIND, PLURAL, VERSION, cel
from finetune_operator.api.job import NAME_MESSAGE, NAME_PATTERN
from finetune_operator.api.manifest_yaml import dump_all
from finetune_operator.api.names import MAX_JOB_NAME
from finetune_operator.api.spec import MUTABLE, FineTuneJobSpec
from finetune_operator.api.status import FineTuneJobStatus
from finetune_operator.api.structural import Schema, structural_schema, without_defaults

HEADER = "# Generated from operator/src/finetune_operator/api by `make crds`. Do not edit.\n"


UNSEEN = {"observedGeneration": -1}
"""Status of a job that no operator has seen. kstatus (Flux, `helm --wait`) calls an object without any status Current;
one whose status is of another generation is InProgress. Flux's own definitions do the same."""


def _column(name: str, path: str, description: str, *, wide: bool = False, kind: str = "string") -> dict[str, Any]:
    return {
        "name": name,
        "type": kind,
        "jsonPath": path,
        "description": description,
        **({"priority": 1} if wide else {}),
    }


COLUMNS = [
    _column("Method", ".spec.method", "What is trained"),
    _column("Model", ".spec.model.source", "Base model"),
    _column("Status", ".status.conditions[?(@.type=='Ready')].reason", "Stage that the job is in"),
    _column("Progress", ".status.progress.percent", "Share of the training that is done"),
    _column("Step", ".status.progress.summary", "Optimizer steps done and in all"),
    _column("Loss", ".status.progress.loss", "Training loss of the last logged step"),
    _column("ETA", ".status.progress.eta", "Time left in training", wide=True),
    _column("URL", ".status.serving.url", "Where the model answers", wide=True),
    _column("Age", ".metadata.creationTimestamp", "Time since the job was created", kind="date"),
]


def immutability(spec: Schema) -> list[dict[str, Any]]:
    """A transition rule for every spec field that training depends on, also where the field is added or removed."""
    rules = []
    for name in spec["properties"]:
        if name in MUTABLE:
            continue
        always = name in spec.get("required", []) or "default" in spec["properties"][name]
        same = f"self.{name} == oldSelf.{name}"
        rule = same if always else f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || {same})"
        message = (
            f"spec.{name} cannot be changed once the job is created; create a FineTuneJob with another name instead"
        )
        rules.append(cel(rule, message, fieldPath=f".{name}"))
    return rules


def _schema() -> Schema:
    spec = structural_schema(FineTuneJobSpec)
    spec["x-kubernetes-validations"] = [*spec.get("x-kubernetes-validations", []), *immutability(spec)]
    name_rule = f"self.metadata.name.size() <= {MAX_JOB_NAME} && self.metadata.name.matches('{NAME_PATTERN}')"
    return {
        "type": "object",
        "description": "One fine-tuning run: from a base model and chat datasets to a tuned model that answers.",
        "required": ["spec"],
        "x-kubernetes-validations": [cel(name_rule, NAME_MESSAGE)],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this representation of the object."},
            "kind": {"type": "string", "description": "Kind of the object: FineTuneJob."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": {**without_defaults(structural_schema(FineTuneJobStatus)), "default": UNSEEN},
        },
    }


def custom_resource_definition() -> dict[str, Any]:
    """The CRD as applied to a cluster."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["ftj"],
                # not `all`: `kubectl delete all --all` must not delete trained models
                "categories": ["finetune"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _schema()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": COLUMNS,
                }
            ],
        },
    }


def main() -> None:
    """Write the CRD to each file named on the command line."""
    text = HEADER + dump_all([custom_resource_definition()])
    for name in sys.argv[1:]:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
