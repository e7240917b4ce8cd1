"""training_loss.png: the loss as logged, smoothed, and on the rows held back."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_operator.api.result import write_whole


def plot_losses(log: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the losses of a trainer log; nothing where it has none."""
    train = [(line["current_steps"], line["loss"]) for line in log if "loss" in line]
    held_out = [(line["current_steps"], line["eval_loss"]) for line in log if "eval_loss" in line]
    if not train and not held_out:
        return
    # Without pyplot: it looks for a display, and takes twice as long to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss", title="Training loss")
    if train:
        steps, losses = zip(*train, strict=True)
        axes.plot(steps, losses, color="tab:blue", alpha=0.35, label="training")
        axes.plot(steps, smoothed(losses), color="tab:blue", label="training, smoothed")
    if held_out:
        axes.plot(*zip(*held_out, strict=True), color="tab:orange", marker="o", markersize=3, label="evaluation")
    axes.legend()
    axes.grid(alpha=0.3)
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)
    write_whole(path, picture.getvalue())


def smoothed(values: Sequence[float]) -> list[float]:
    """Exponential moving average whose weight grows with the number of points, as LLaMA-Factory's plot has it."""
    weight = 1.8 * (1 / (1 + math.exp(-0.05 * len(values))) - 0.5)
    averages: list[float] = []
    for value in values:
        averages.append(value if not averages else weight * averages[-1] + (1 - weight) * value)
    return averages
