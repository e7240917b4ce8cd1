"""The adapter that a job goes on with: fetched, and checked against the base model and the job's own fields."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_operator.api.model import Adapter
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_operator.api.source import Scheme, parse_source
from finetune_operator.api.spec import FineTuneJobSpec
from finetune_trainer.modules import ALL_LINEAR
from finetune_trainer.prepare.base_model import fetch_folder
from finetune_trainer.prepare.code_check import code_problems
from finetune_trainer.prepare.skeleton import build_skeleton
from finetune_trainer.prepare.weights import WeightsError, file_shapes

if TYPE_CHECKING:
    from peft import LoraConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_HUB_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[A-Za-z0-9_][\w.-]*")


def provide_adapter(run: RunConfig) -> None:
    """Fetch the adapter that the spec names, if it names one, and check it. Raises StageFailure with all that is wrong."""
    if run.spec.adapter is None:
        return
    folder = fetch_folder(run, "spec.adapter", run.spec.adapter, run.paths.initial_adapter)
    problems = list(adapter_problems(folder, run.paths.base_model, run.spec, run.spec.adapter))
    if problems:
        lines = "\n".join(f"  {text}" for text in problems)
        raise StageFailure(
            ExitCode.MODEL_UNUSABLE,
            f"spec.adapter.source: {run.spec.adapter.source} cannot be trained further:\n{lines}",
        )


def adapter_problems(folder: Path, base: Path, spec: FineTuneJobSpec, adapter: Adapter) -> Iterator[str]:
    """Why the adapter is none, is another model's, or is not what spec.lora says."""
    config = _read_config(folder)
    if isinstance(config, str):
        yield config
        return
    code = list(code_problems(folder))
    yield from code
    yield from _base_problems(config, spec)
    yield from _shape_problems(config, spec)
    if not code:
        yield from _weight_problems(folder, base)


def _read_config(folder: Path) -> dict[str, Any] | str:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except FileNotFoundError:
        return f"{CONFIG} is missing; the source must be the folder of an adapter in PEFT's format"
    except ValueError as error:
        return f"{CONFIG} is not JSON ({error}); copy the adapter again"
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        return f"{CONFIG} has peft_type {kind}, expected LORA; other kinds of adapters are not trained further"
    return dict(config)


def _base_problems(config: Mapping[str, Any], spec: FineTuneJobSpec) -> Iterator[str]:
    """The base's name counts only where both are names of a hub: a path says where the model lay, not which it was."""
    trained_on = str(config.get("base_model_name_or_path") or "")
    source = parse_source(spec.model.source)
    is_of_hub = source.scheme in (Scheme.HUGGING_FACE, Scheme.MODELSCOPE)
    if is_of_hub and _HUB_NAME.fullmatch(trained_on) and trained_on.lower() != source.owner.lower():
        yield (
            f"it was trained on {trained_on}, but spec.model.source is {spec.model.source}; name the same model, or, if the "
            f"two are one model, correct base_model_name_or_path in {CONFIG}"
        )


def _shape_problems(config: Mapping[str, Any], spec: FineTuneJobSpec) -> Iterator[str]:
    """Where spec.lora says something else than the adapter is."""
    lora = spec.lora
    if lora is None:
        return
    found = {
        "rank": (config.get("r"), lora.rank),
        "alpha": (config.get("lora_alpha"), lora.effective_alpha),
        "rsLoRA": (bool(config.get("use_rslora")), lora.rs_lora),
        "doRA": (bool(config.get("use_dora")), lora.dora),
        "modulesToSave": (sorted(config.get("modules_to_save") or []), sorted(lora.modules_to_save)),
    }
    targets = config.get("target_modules")
    if ALL_LINEAR not in lora.target_modules and isinstance(targets, list):
        found["targetModules"] = (sorted(targets), sorted(lora.target_modules))
    for field, (has, asked) in found.items():
        if has != asked:
            yield f"it has {field} {has}, but spec.lora.{field} is {asked}; an adapter keeps its shape: remove spec.lora"


def _weight_problems(folder: Path, base: Path) -> Iterator[str]:
    """Where the adapter's tensors are not those that the base model with its configuration would have."""
    problems: list[str] = []
    if not (folder / WEIGHTS).is_file():
        yield f"{WEIGHTS} is missing; save the adapter as safetensors"
        return
    try:
        found = file_shapes(folder / WEIGHTS)
    except WeightsError as error:
        yield from error.problems
        return
    skeleton = build_skeleton(base, problems)
    if skeleton is None:
        return  # what is wrong with the base model is told with it
    try:
        wanted = _wanted_shapes(skeleton, folder)
    except ValueError as error:
        yield f"it does not fit the base model: {str(error).splitlines()[0]}"
        return
    other = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
    if other:
        name = other[0]
        yield (
            f"it does not fit the base model: {len(other)} tensors have another shape, such as {name}, found "
            f"{list(found[name])}, expected {list(wanted[name])}; name the model that it was trained on"
        )
    for words, names in (
        ("lacks", wanted.keys() - found.keys()),
        ("has beyond what fits", found.keys() - wanted.keys()),
    ):
        if names:
            yield (
                f"it does not fit the base model: it {words} {len(names)} tensors, such as {min(names)}; name the model that "
                "it was trained on"
            )


def _wanted_shapes(skeleton: Any, folder: Path) -> dict[str, tuple[int, ...]]:
    import torch
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    config: LoraConfig = PeftConfig.from_pretrained(str(folder))
    # PEFT would warn that the model lies elsewhere now.
    config.base_model_name_or_path = None
    with torch.device("meta"):
        model = get_peft_model(skeleton, config)
    # Without the embeddings, which PEFT would look up on the hub to decide whether they were resized.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
