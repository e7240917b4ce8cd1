"""``finetune plot``: the training loss, in characters or as a picture."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from finetune_operator.cli import options
from finetune_operator.cli.cluster import Cluster
from finetune_operator.cli.commands.logs import find_pods
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.local.folder import is_run_folder, load_config
from finetune_operator.cli.local.progress import read_log
from finetune_operator.cli.loss_curve import Point, draw, points_of_lines, points_of_records


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME|DIR", help="a FineTuneJob, or the folder of a local run")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write a picture (PNG) instead of drawing in the terminal"
    )
    options.add_cluster(parser)


def execute(arguments: argparse.Namespace) -> int:
    folder = Path(arguments.name)
    if is_run_folder(folder):
        return _plot_folder(folder, arguments.output)
    points = cluster_points(Cluster.of(arguments), arguments.name)
    if arguments.output:
        write_picture(points, arguments.name, arguments.output)
    else:
        print("\n".join(draw(points)))
    return 0


def _plot_folder(folder: Path, output: Path | None) -> int:
    config = load_config(folder)
    picture = config.paths.loss_plot
    if output and not picture.exists():
        raise CommandError(f"{picture}: not drawn yet; without -o the loss so far is drawn in the terminal")
    if output:
        shutil.copyfile(picture, output)
        return 0
    points = points_of_records(read_log(config.paths.trainer_log))
    if not points:
        raise CommandError(f"{config.paths.trainer_log}: no step has been logged yet")
    print("\n".join(draw(points)))
    if picture.exists():
        print(f"picture: {picture}")
    return 0


def cluster_points(cluster: Cluster, name: str) -> list[Point]:
    """Loss by step, from the logs of every attempt whose pod is still there. Raises CommandError where there is none."""
    pods = find_pods(cluster, name, "train")
    lines = [line for pod in reversed(pods) for line in cluster.log(pod["metadata"]["name"], {})]
    points = points_of_lines(lines)
    if not points:
        raise CommandError(f"{name}: no step has been logged yet; `finetune status {name}` says how far it is")
    return points


def write_picture(points: Sequence[Point], name: str, file: Path) -> None:
    """Draw a PNG. Raises CommandError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise CommandError("drawing a picture needs matplotlib: pip install matplotlib; or leave out -o") from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot([point.step for point in points], [point.loss for point in points])
    axes.set(title=f"training loss of {name}", xlabel="step", ylabel="loss")
    figure.savefig(file, format="png", dpi=120)
