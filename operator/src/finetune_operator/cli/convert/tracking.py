"""``report_to``: experiment trackers."""

from __future__ import annotations

from typing import Any

from finetune_operator.cli.convert.options import Options
from finetune_operator.cli.convert.settings import Settings
from finetune_operator.cli.manifest.problems import show

WANDB_SECRET = "wandb-api-key"  # noqa: S105  # the name of a Secret, not what it holds
_KNOWN = ("none", "tensorboard", "wandb", "mlflow")


def tracking(settings: Settings, options: Options) -> dict[str, Any] | None:
    """spec.tracking, or None where nothing is reported to."""
    value = settings.get("report_to")
    names = value if isinstance(value, list) else [] if value is None else [value]
    unknown = [name for name in names if name not in _KNOWN]
    if unknown:
        text = f"found {', '.join(map(show, unknown))}, expected of {', '.join(_KNOWN)}; name the trackers that you use"
        settings.findings.problem("report_to", text)
    result: dict[str, Any] = {}
    if "tensorboard" in names:
        result["tensorBoard"] = {"enabled": True}
    if "wandb" in names:
        settings.findings.note(
            "report_to",
            f"make the Secret for wandb: `kubectl create secret generic {WANDB_SECRET} --from-literal=token=…`",
        )
        result["wandb"] = {"project": options.wandb_project, "apiKeySecret": {"name": WANDB_SECRET}}
    if "mlflow" in names and options.mlflow_uri is None:
        settings.findings.problem("report_to", "found mlflow without an address; set the variable MLFLOW_TRACKING_URI")
    elif "mlflow" in names:
        result["mlflow"] = {"trackingUri": options.mlflow_uri, "experiment": options.mlflow_experiment}
    return result or None
