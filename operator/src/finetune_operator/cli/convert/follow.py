"""Training files that go on with the adapter of another file of the same call."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_operator.api import names
from finetune_operator.cli.convert.deliver import Trained, absolute_path
from finetune_operator.cli.convert.names import job_name


def follow(trained: Sequence[Trained]) -> None:
    """Let a job whose adapter is another job's output read it from that job's volume."""
    by_output = {job.output: job for job in trained if job.output is not None}
    for job in trained:
        named = job.settings.names("adapter_name_or_path")
        earlier = by_output.get(absolute_path(named[0])) if named else None
        if earlier is None or earlier is job:
            continue
        claim = names.volume(job_name(earlier.settings.config.file))
        job.spec["adapter"] = {"source": f"pvc://{claim}/adapter"}
        job.settings.findings.note(
            "adapter_name_or_path",
            f"is what {earlier.settings.config.file} trains; apply this job once that one is complete",
        )
