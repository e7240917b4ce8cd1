"""The observed state of a FineTuneJob."""

from __future__ import annotations

import enum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from finetune_operator.api.base import ApiModel

ShortText = Annotated[str, StringConstraints(max_length=253)]
LongText = Annotated[str, StringConstraints(max_length=4096)]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class StatusModel(ApiModel):
    """A status is read back by newer and older operators: fields that this one does not know are ignored."""

    model_config = ConfigDict(extra="ignore")


class ConditionStatus(enum.StrEnum):
    """Three-valued truth of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StatusModel):
    """One condition, laid out as metav1.Condition."""

    type: ShortText
    """Type of the condition, such as Ready or Trained."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: ShortText
    """One CamelCase word from the list in the API documentation."""
    message: LongText = ""
    """What happened, and what to do about it."""
    observed_generation: int | None = None
    """Generation of the spec that the condition was computed from."""
    last_transition_time: Timestamp
    """When the status of the condition last changed."""


class Progress(StatusModel):
    """How far training is. Written at most every 10 seconds or percent."""

    step: int = 0
    """Optimizer steps done."""
    total_steps: int = 0
    """Optimizer steps in all."""
    percent: ShortText = ""
    """Share done, such as 24%."""
    summary: ShortText = ""
    """Steps done and in all, such as 120/500."""
    epoch: ShortText | None = None
    """Passes over the data."""
    loss: ShortText | None = None
    """Training loss of the last logged step."""
    eval_loss: ShortText | None = None
    """Loss on the rows held back."""
    learning_rate: ShortText | None = None
    """Learning rate of the last logged step."""
    tokens_per_second: ShortText | None = None
    """Real (non-padding) tokens a second."""
    tflops_per_second: ShortText | None = None
    """Operations in learning a second and GPU, in units of 10^12; absent for models that they are not counted for."""
    share_of_limit: ShortText | None = None
    """The same as a share of the GPU's dense 16-bit limit by its datasheet, such as 49.1%; absent for unlisted GPUs and the CPU."""
    data_wait_share: ShortText | None = None
    """Share of the time that training waited for rows, such as 0.02%; under 1% is expected."""
    eta: ShortText | None = None
    """Time left, such as 1h20m."""
    updated: Timestamp | None = None
    """When the trainer last reported."""


class Attempt(StatusModel):
    """One run of the training pods."""

    number: int
    """Number of the attempt, from 0; part of the training Job's name."""
    exit_code: int | None = None
    """Exit code of the container that ended it."""
    reason: ShortText | None = None
    """Why it ended."""
    message: LongText | None = None
    """Its last words."""
    finished: Timestamp | None = None
    """When it ended."""
    seconds: int | None = None
    """How long the container ran that ended it."""


class DatasetStatus(StatusModel):
    """What prepare found in the datasets."""

    rows: int = 0
    """Rows that are trained on."""
    dropped: int = 0
    """Rows left out; report.json on the job's volume says why, as file:line."""
    tokens: int = 0
    """Tokens in all."""
    trained_tokens: int = 0
    """Tokens that are learnt (the others are prompt)."""


class Results(StatusModel):
    """Figures of the finished stages, as decimal strings."""

    train_loss: ShortText | None = None
    """Mean training loss."""
    last_loss: ShortText | None = None
    """Training loss of the last logged step."""
    eval_loss: ShortText | None = None
    """Loss on the rows held back, at the end."""
    steps: int | None = None
    """Optimizer steps done."""
    float8_loss_difference: ShortText | None = None
    """Precision FP8Base: relative change of the loss of the first rows by rounding. Over 0.01, BF16 was computed in instead."""
    merge_max_difference: ShortText | None = None
    """Largest difference of a logit between base + adapter and the merged model."""
    merge_quantized_base: ShortText | None = None
    """Weights that an adapter of method QLoRA was folded into: Original or Dequantized."""
    merge_kl_original: ShortText | None = None
    """Kullback-Leibler divergence, in nats, of the model merged into the original weights from the model as trained."""
    merge_kl_dequantized: ShortText | None = None
    """The same, of the model merged into the dequantised weights."""


class ServingStatus(StatusModel):
    """Where the model answers."""

    url: ShortText | None = None
    """Base URL of the OpenAI-compatible endpoint inside the cluster."""
    model_name: ShortText | None = None
    """Name to ask for in the field `model` of a request."""
    ready_replicas: int = 0
    """Pods that have answered."""


class FineTuneJobStatus(StatusModel):
    """Observed state. Conditions: Ready, Prepared, Trained, Merged, Served, Complete, Failed, Suspended, Reconciling, Stalled."""

    observed_generation: int | None = None
    """Generation of the spec that this status was computed from."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
        ),
    ] = []
    """Conditions, by type. `Ready` sums them up; its reason is the stage."""
    start_time: Timestamp | None = None
    """When the operator first saw the job."""
    completion_time: Timestamp | None = None
    """When the job completed or failed."""
    attempt: int | None = None
    """Number of the current or last training attempt, from 0."""
    attempts: Annotated[list[Attempt], Field(max_length=16)] = []
    """The last training attempts that ended."""
    progress: Progress | None = None
    """How far training is."""
    dataset: DatasetStatus | None = None
    """What prepare found in the datasets."""
    results: Results | None = None
    """Figures of the finished stages."""
    serving: ServingStatus | None = None
    """Where the model answers."""
    volume: ShortText | None = None
    """PersistentVolumeClaim that holds everything the job made, and the folder on it, as claim/folder."""
