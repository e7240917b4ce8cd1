"""Experiment trackers that the trainer reports to."""

from __future__ import annotations

from pydantic import Field

from finetune_operator.api.address import METADATA_MESSAGE, URL_PATTERN, address_cel, is_allowed_address
from finetune_operator.api.base import ApiModel, Rule, SecretKeyReference


class TensorBoard(ApiModel):
    """Write TensorBoard event files to the job's volume."""

    enabled: bool = True
    """Write them."""


class WeightsAndBiases(ApiModel):
    """Report to Weights & Biases. The run's id is the job's UID, so a restarted job goes on with the same run."""

    rules = (
        Rule(
            cel=f"!has(self.baseUrl) || ({address_cel('self.baseUrl')})",
            message=METADATA_MESSAGE,
            holds=lambda wandb: wandb.base_url is None or is_allowed_address(wandb.base_url),
            field=".baseUrl",
        ),
    )

    project: str = Field(min_length=1, max_length=128)
    """Project of the run."""
    entity: str | None = Field(default=None, min_length=1, max_length=128)
    """User or team that owns the project."""
    base_url: str | None = Field(default=None, max_length=256, pattern=URL_PATTERN)
    """Address of a self-hosted server."""
    api_key_secret: SecretKeyReference
    """Secret with the API key."""


class MLflow(ApiModel):
    """Report to an MLflow tracking server."""

    rules = (
        Rule(
            cel=address_cel("self.trackingUri"),
            message=METADATA_MESSAGE,
            holds=lambda mlflow: is_allowed_address(mlflow.tracking_uri),
            field=".trackingUri",
        ),
    )

    tracking_uri: str = Field(min_length=1, max_length=256, pattern=URL_PATTERN)
    """Address of the tracking server."""
    experiment: str = Field(min_length=1, max_length=128)
    """Experiment that the run belongs to."""
    token_secret: SecretKeyReference | None = None
    """Secret with the bearer token."""


class Tracking(ApiModel):
    """Experiment trackers."""

    tensor_board: TensorBoard | None = None
    """TensorBoard event files on the job's volume."""
    wandb: WeightsAndBiases | None = None
    """Weights & Biases."""
    mlflow: MLflow | None = None
    """MLflow."""
