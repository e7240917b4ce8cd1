"""The desired state of a FineTuneJob, and the rules that span its fields."""

from __future__ import annotations

from pydantic import Field

from finetune_operator.api.base import ApiModel, Rule
from finetune_operator.api.dataset import Dataset
from finetune_operator.api.delivery import Merge, QuantizedBase, Serving, ServingMode
from finetune_operator.api.method import DeepSpeed, LoRA, Method, Quantization
from finetune_operator.api.model import Adapter, Model
from finetune_operator.api.resources import AccessMode, Resources, Storage
from finetune_operator.api.tokenization import Tokenization
from finetune_operator.api.tracking import Tracking
from finetune_operator.api.training import (
    Checkpoints,
    Evaluation,
    EvaluationInterval,
    Logging,
    Precision,
    Training,
)

MUTABLE = ("suspend", "serving", "ttlSecondsAfterFinished", "activeDeadlineSeconds")
"""Fields that may change after creation; every other one is what the job trained with."""


def _saves_what_it_measures(spec: FineTuneJobSpec) -> bool:
    evaluation, checkpoints = spec.evaluation, spec.checkpoints
    if evaluation is None or evaluation.interval.value != checkpoints.interval.value:
        return False
    return evaluation.interval is not EvaluationInterval.STEPS or checkpoints.steps % evaluation.steps == 0


_SPEC_RULES = (
    Rule(
        cel="self.method != 'Full' || !has(self.lora)",
        message="lora is only for method LoRA or QLoRA; remove it or change method",
        holds=lambda spec: spec.method is not Method.FULL or spec.lora is None,
        field=".lora",
    ),
    Rule(
        cel="self.method != 'Full' || !has(self.adapter)",
        message="adapter is only for method LoRA or QLoRA; remove it or change method",
        holds=lambda spec: spec.method is not Method.FULL or spec.adapter is None,
        field=".adapter",
    ),
    Rule(
        cel="self.method == 'QLoRA' || !has(self.quantization)",
        message="quantization is only for method QLoRA; remove it or change method",
        holds=lambda spec: spec.method is Method.QLORA or spec.quantization is None,
        field=".quantization",
    ),
    Rule(
        cel="self.method == 'QLoRA' || self.merge.quantizedBase == 'Auto'",
        message="quantizedBase is only for method QLoRA; remove it or change method",
        holds=lambda spec: spec.method is Method.QLORA or spec.merge.quantized_base is QuantizedBase.AUTO,
        field=".merge.quantizedBase",
    ),
    Rule(
        cel="!(self.method == 'QLoRA' && has(self.quantization) && self.quantization.bits == 8 && has(self.deepspeed)"
        " && self.deepspeed.stage == 3)",
        message="ZeRO stage 3 takes 4-bit weights only; set quantization.bits to 4 or a lower stage",
        holds=lambda spec: (
            not (
                spec.quantization is not None
                and spec.quantization.bits == 8
                and spec.deepspeed is not None
                and spec.deepspeed.stage == 3
            )
        ),
        field=".deepspeed",
    ),
    Rule(
        cel="self.training.precision != 'FP8Base' || self.method == 'LoRA'",
        message="precision FP8Base is only for method LoRA",
        holds=lambda spec: spec.training.precision is not Precision.FP8_BASE or spec.method is Method.LORA,
        field=".training.precision",
    ),
    Rule(
        cel="!has(self.training.earlyStoppingPatience) || has(self.evaluation)",
        message="earlyStoppingPatience needs evaluation",
        holds=lambda spec: spec.training.early_stopping_patience is None or spec.evaluation is not None,
        field=".training.earlyStoppingPatience",
    ),
    Rule(
        cel="!has(self.evaluation) || !self.evaluation.loadBest || (self.evaluation.interval == self.checkpoints.interval"
        " && (self.evaluation.interval != 'Steps' || self.checkpoints.steps % self.evaluation.steps == 0))",
        message="loadBest needs every checkpoint to fall on an evaluation: set both to interval Epoch, or both to Steps with"
        " checkpoints.steps a multiple of evaluation.steps",
        holds=lambda spec: spec.evaluation is None or not spec.evaluation.load_best or _saves_what_it_measures(spec),
        field=".evaluation.loadBest",
    ),
    Rule(
        cel="!has(self.training.loraPlusRatio) || self.method != 'Full'",
        message="loraPlusRatio is only for method LoRA or QLoRA; remove it or change method",
        holds=lambda spec: spec.training.lora_plus_ratio is None or spec.method is not Method.FULL,
        field=".training.loraPlusRatio",
    ),
    Rule(
        cel="self.resources.nodes == 1 || self.resources.gpusPerNode > 0",
        message="more than one node needs gpusPerNode of 1 or more",
        holds=lambda spec: spec.resources.nodes == 1 or spec.resources.gpus_per_node > 0,
        field=".resources.gpusPerNode",
    ),
    Rule(
        cel="self.resources.nodes == 1 || has(self.storage.claim) || self.storage.accessMode == 'ReadWriteMany'",
        message="more than one node needs storage that several nodes can mount: accessMode ReadWriteMany, or a claim that has it",
        holds=lambda spec: (
            spec.resources.nodes == 1
            or spec.storage.claim is not None
            or spec.storage.access_mode is AccessMode.READ_WRITE_MANY
        ),
        field=".storage.accessMode",
    ),
    Rule(
        cel="!has(self.serving) || self.serving.mode != 'Adapter' || self.method != 'Full'",
        message="serving mode Adapter needs an adapter: method LoRA or QLoRA",
        holds=lambda spec: (
            spec.serving is None or spec.serving.mode is not ServingMode.ADAPTER or spec.method is not Method.FULL
        ),
        field=".serving.mode",
    ),
    Rule(
        cel="!has(self.serving) || !self.serving.enabled || self.serving.mode != 'Merged' || self.method == 'Full'"
        " || self.merge.enabled",
        message="serving mode Merged needs merge.enabled; merge, or serve mode Adapter",
        holds=lambda spec: (
            spec.serving is None
            or not spec.serving.enabled
            or spec.serving.mode is not ServingMode.MERGED
            or spec.method is Method.FULL
            or spec.merge.enabled
        ),
        field=".serving.mode",
    ),
)


class FineTuneJobSpec(ApiModel):
    """What to train, on what, and what to do with the result. Training fields cannot be changed once created."""

    rules = _SPEC_RULES

    model: Model
    """The base model to fine-tune."""
    datasets: list[Dataset] = Field(min_length=1, max_length=16)
    """The chat datasets to learn from, one after the other."""
    method: Method
    """What is trained: Full, LoRA or QLoRA."""
    lora: LoRA | None = None
    """Shape of the adapters, for LoRA and QLoRA. Default: rank 8 on every linear layer."""
    adapter: Adapter | None = None
    """An adapter to go on training, for LoRA and QLoRA. Default: a new one."""
    quantization: Quantization | None = None
    """How QLoRA stores the frozen weights. Default: 4-bit NF4 with double quantisation."""
    deepspeed: DeepSpeed | None = None
    """Shard the training state with DeepSpeed ZeRO."""
    tokenization: Tokenization = Tokenization()
    """How conversations become token ids and labels."""
    training: Training = Training()
    """Hyper-parameters."""
    evaluation: Evaluation | None = None
    """Rows held back to measure the loss on. Default: none."""
    logging: Logging = Logging()
    """What the trainer writes down."""
    checkpoints: Checkpoints = Checkpoints()
    """What a restarted job goes on from."""
    resources: Resources = Resources()
    """What the training pods run on."""
    storage: Storage = Storage()
    """The volume that holds everything that the job makes."""
    tracking: Tracking | None = None
    """Experiment trackers."""
    merge: Merge = Merge()
    """Fold the adapter into the base model."""
    serving: Serving | None = None
    """Keep the tuned model running behind an endpoint. Default: it is not served."""
    suspend: bool = False
    """Stop the job's pods; training goes on from the last checkpoint when this is false again."""
    max_retries: int = Field(default=5, ge=0, le=100)
    """How often training starts again, from the last checkpoint, after a failure that was not the user's."""
    active_deadline_seconds: int | None = Field(default=None, ge=1, le=31_536_000)
    """Seconds from the start after which the job fails."""
    ttl_seconds_after_finished: int | None = Field(default=None, ge=0, le=31_536_000)
    """Seconds after which the Jobs and pods of a finished job are deleted. The FineTuneJob, its model and its service stay."""

    @property
    def is_adapter(self) -> bool:
        """Whether training leaves an adapter rather than a whole model."""
        return self.method is not Method.FULL

    @property
    def wants_merge(self) -> bool:
        """Whether there is an adapter and it is to be merged."""
        return self.is_adapter and self.merge.enabled

    @property
    def wants_serving(self) -> bool:
        """Whether the result is to be served."""
        return self.serving is not None and self.serving.enabled

    @property
    def effective_lora(self) -> LoRA:
        """The adapter's shape as set, or the defaults."""
        return self.lora or LoRA()

    @property
    def effective_quantization(self) -> Quantization | None:
        """How the frozen weights are stored, or None where they are not quantised."""
        return (self.quantization or Quantization()) if self.method is Method.QLORA else None
