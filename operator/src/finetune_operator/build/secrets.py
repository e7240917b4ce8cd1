"""Which Secrets each stage mounts: only those that it uses, and of each only the keys."""

from __future__ import annotations

from collections.abc import Iterable

from finetune_operator.api.base import SecretKeyReference
from finetune_operator.api.dataset import Dataset
from finetune_operator.api.model import Adapter, Model
from finetune_operator.api.source import S3_SESSION_KEY, keys_read
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_operator.build import inputs, layout
from finetune_operator.build.mount import Mount
from finetune_operator.build.types import Manifest

Reference = SecretKeyReference | None


def of_prepare(spec: FineTuneJobSpec) -> list[Mount]:
    """Tokens of gated models and datasets, and keys of object stores."""
    return _mounts(reference for named in _read_with_a_secret(spec) for reference in _of_source(named))


def _read_with_a_secret(spec: FineTuneJobSpec) -> list[Model | Adapter | Dataset]:
    return [spec.model, *([spec.adapter] if spec.adapter else []), *inputs.datasets(spec)]


def _of_source(named: Model | Adapter | Dataset) -> list[Reference]:
    return [] if named.token_secret is None else [*keys_read(named.source, named.token_secret)]


def of_train(spec: FineTuneJobSpec) -> list[Mount]:
    """Keys of the experiment trackers."""
    tracking = spec.tracking
    if tracking is None:
        return []
    wandb = tracking.wandb.api_key_secret if tracking.wandb else None
    mlflow = tracking.mlflow.token_secret if tracking.mlflow else None
    return _mounts([wandb, mlflow])


def of_merge(spec: FineTuneJobSpec) -> list[Mount]:
    """Token for the upload of the merged model."""
    return _mounts([spec.merge.push.token_secret if spec.merge.push else None])


def of_serve(spec: FineTuneJobSpec) -> list[Mount]:
    """Key that clients of the model have to show."""
    return _mounts([spec.serving.api_key_secret if spec.serving else None])


def _mounts(references: Iterable[Reference]) -> list[Mount]:
    keys: dict[str, list[str]] = {}
    for reference in references:
        if reference is not None and reference.key not in keys.setdefault(reference.name, []):
            keys[reference.name].append(reference.key)
    return [_mount(index, name, keys[name]) for index, name in enumerate(keys)]


def _mount(index: int, name: str, keys: list[str]) -> Mount:
    items = [{"key": key, "path": key} for key in keys]
    # 0440 with the pod's fsGroup: the stage's user can read it, nobody else in the container can.
    source: Manifest = {"secret": {"secretName": name, "items": items, "defaultMode": 0o440}}
    if S3_SESSION_KEY in keys:
        # Most accounts have no session token. The kubelet knows optional volumes only, no optional keys; prepare says
        # which of the others is missing.
        source["secret"]["optional"] = True
    return Mount(name=f"secret-{index}", source=source, path=layout.secret_folder(name))
