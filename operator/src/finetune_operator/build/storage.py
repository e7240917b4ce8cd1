"""The claim, and the folder on it, that hold everything a job makes."""

from __future__ import annotations

from finetune_operator.api import names
from finetune_operator.build import layout
from finetune_operator.build.mount import Mount
from finetune_operator.build.types import JobView, Manifest


def job_claim(job: JobView) -> str:
    """The claim that the user named, or the one that the operator makes."""
    return job.spec.storage.claim or names.volume(job.name)


def job_folder(job: JobView) -> str | None:
    """Folder on a shared claim; None for the root of the job's own."""
    return job.name if job.spec.storage.claim else None


def location(job: JobView) -> str:
    """Claim and folder as status.volume shows them."""
    folder = job_folder(job)
    return f"{job_claim(job)}/{folder}" if folder else job_claim(job)


def claim_source(claim: str) -> Manifest:
    """Volume source of a claim. Read-only is said where it is mounted, so that one volume can serve both ways."""
    return {"persistentVolumeClaim": {"claimName": claim}}


def job_mount(job: JobView, *, read_only: bool = False) -> Mount:
    """The job's folder."""
    source = claim_source(job_claim(job))
    return Mount(name="job", source=source, path=layout.JOB, read_only=read_only, sub_path=job_folder(job))
