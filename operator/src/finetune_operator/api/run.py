"""run.json: what the operator (or ``finetune run``) tells the images, and where they find and leave things."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from finetune_operator.api.base import ApiModel, Quantity
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.source import ParsedSource, Scheme, parse_source
from finetune_operator.api.spec import FineTuneJobSpec


class Hub(ApiModel):
    """Where models and datasets are downloaded from."""

    hugging_face_endpoint: str | None = None
    """Base URL of the Hugging Face hub or a mirror. Default: the library's own."""
    model_scope_endpoint: str | None = None
    """Base URL of ModelScope or a mirror. Default: the library's own."""
    s3_endpoint: str | None = None
    """Base URL of the object store of s3:// sources. Default: Amazon S3."""
    s3_region: str | None = None
    """Region of the object store. Default: the library's own."""


class WatchdogBounds(ApiModel):
    """How long training may stand still before it is ended with exit code 74 and tried again."""

    seconds: float = Field(default=300, gt=0, le=86400)
    """Without an optimizer step, at least. Evaluations, checkpoints and the first step have their own bound."""
    median_steps: float = Field(default=10, ge=1, le=1000)
    """Without an optimizer step, in median steps, where that is longer."""
    seconds_otherwise: float = Field(default=1800, gt=0, le=86400)
    """Without a sign of life while loading, in the first step, while evaluating (a batch), and while writing (a file)."""


class RunConfig(ApiModel):
    """Everything a stage needs to know. The same file for every stage and attempt of a job."""

    version: Literal["v1"] = "v1"
    """Version of this contract."""
    name: str
    """Name of the FineTuneJob; also the name that the served model answers to."""
    namespace: str = ""
    """Namespace of the FineTuneJob; empty for a local run."""
    uid: str
    """UID of the FineTuneJob: identity of the run for checkpoints and experiment trackers."""
    spec: FineTuneJobSpec
    """The job's spec, defaults filled in."""
    root: str
    """Folder that holds everything the job makes."""
    claims: dict[str, str] = Field(default={})
    """Where each claim of a pvc:// source is mounted."""
    config_maps: dict[str, str] = Field(default={})
    """Where each ConfigMap of a configmap:// source is mounted."""
    images: dict[str, str] = Field(default={})
    """Where each image of an oci:// source is mounted."""
    cache: str | None = None
    """Folder that jobs share, with what they downloaded. Default: every job downloads for itself."""
    patience_seconds: int = 0
    """How long prepare goes on asking a hub or store that cannot be reached or answers with a fault of its own."""
    gpu_memory: Quantity | None = None
    """Memory of one GPU, by the job or else by the platform; None where nobody said."""
    secrets: str = "/finetune/secrets"
    """Folder with one folder a Secret, one file a key."""
    hub: Hub = Hub()
    """Where models and datasets are downloaded from."""
    watchdog: WatchdogBounds = WatchdogBounds()
    """How long training may stand still."""

    @property
    def paths(self) -> Paths:
        """Where the stages find and leave things."""
        return Paths(Path(self.root))

    @classmethod
    def load(cls, path: Path) -> RunConfig:
        """Read run.json. Raises pydantic.ValidationError where it does not fit this version of the images."""
        return cls.model_validate_json(path.read_bytes(), by_alias=True, by_name=False)

    def dump(self) -> str:
        """The JSON text, stable for equal configurations."""
        return json.dumps(self.to_manifest(), indent=1, sort_keys=True)

    def local_path(self, source: str) -> Path | None:
        """Where a pvc://, configmap://, oci:// or file:// source lies in this container; None for one that is downloaded.

        Raises KeyError where the claim, ConfigMap or image is not mounted.
        """
        parsed = parse_source(source)
        folder = self._mounted_at(parsed)
        return folder if folder is None else folder / parsed.path

    def stray(self, source: str) -> Path | None:
        """A file of a mounted source that a link leads out of its volume, to what else is mounted; None where there is none.

        A local run reads whatever its user may read: only in a cluster does a volume bound what a job may name.
        Raises KeyError where the claim, ConfigMap or image is not mounted.
        """
        parsed = parse_source(source)
        root = self._mounted_at(parsed)
        if root is None or not self.namespace:
            return None
        path, real_root = root / parsed.path, root.resolve()
        below = path.rglob("*") if path.is_dir() else ()
        return next((each for each in (path, *below) if not each.resolve().is_relative_to(real_root)), None)

    def _mounted_at(self, parsed: ParsedSource) -> Path | None:
        if parsed.scheme is Scheme.FILE:
            return Path("/")
        if parsed.scheme is Scheme.CLAIM:
            return Path(self.claims[parsed.owner])
        if parsed.scheme is Scheme.CONFIG_MAP:
            return Path(self.config_maps[parsed.owner])
        if parsed.scheme is Scheme.OCI:
            return Path(self.images[parsed.owner])
        return None

    def training_hash(self) -> str:
        """Identity of the training itself (sha256, hex): equal where a checkpoint of one may be continued by the other."""
        spec = self.spec.to_manifest()
        inputs = ("model", "adapter", "datasets", "tokenization", "evaluation")
        settings = ("method", "lora", "quantization", "training")
        text = json.dumps({key: spec.get(key) for key in (*inputs, *settings)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load_run(path: Path) -> RunConfig:
    """Read run.json for a stage. Raises StageFailure where it is missing or does not fit this version of the images."""
    try:
        return RunConfig.load(path)
    except (OSError, ValidationError) as error:
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            f"{path}: not a run.json that this image understands: {error}. Use images and operator of one version.",
        ) from error


@dataclass(frozen=True, slots=True)
class Paths:
    """Layout of a job's folder: on its volume in a cluster, in ``DIR/<job>/`` of ``finetune run``."""

    root: Path

    @property
    def base_model(self) -> Path:
        """The base model: downloaded, or a link to where it lies."""
        return self.root / "base"

    @property
    def initial_adapter(self) -> Path:
        """The adapter that training goes on with: downloaded, or a link to where it lies."""
        return self.root / "initial-adapter"

    @property
    def data(self) -> Path:
        """Tokenised rows, memory-mapped by the trainer."""
        return self.root / "data"

    @property
    def parity_rows(self) -> Path:
        """JSON lists of token ids: the heads of a few rows, on which the merge proves its result."""
        return self.data / "parity_rows.json"

    @property
    def report(self) -> Path:
        """What prepare found: rows, dropped rows as file:line:reason, length histogram, memory estimate."""
        return self.root / "report.json"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints, one folder each."""
        return self.root / "checkpoints"

    @property
    def trainer_log(self) -> Path:
        """One JSON object a logged step, with LLaMA-Factory's keys."""
        return self.root / "trainer_log.jsonl"

    @property
    def loss_plot(self) -> Path:
        """Picture of the loss."""
        return self.root / "training_loss.png"

    @property
    def adapter(self) -> Path:
        """The trained adapter, in PEFT's format (LoRA, QLoRA)."""
        return self.root / "adapter"

    @property
    def model(self) -> Path:
        """The trained model (Full)."""
        return self.root / "model"

    @property
    def merged(self) -> Path:
        """Base model and adapter in one (LoRA, QLoRA)."""
        return self.root / "merged"

    @property
    def result(self) -> Path:
        """Figures of each finished stage: {"prepare": {…}, "train": {…}, "merge": {…}}."""
        return self.root / "result.json"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard event files."""
        return self.root / "tensorboard"

    def served_model(self, spec: FineTuneJobSpec) -> Path:
        """What the server loads: the tuned model, the merged model, or the adapter (whose base is ``base_model``)."""
        if not spec.is_adapter:
            return self.model
        if (spec.serving is not None and spec.serving.mode.value == "Adapter") or not spec.merge.enabled:
            return self.adapter
        return self.merged
