"""One FineTuneJob, told to a person."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from finetune_operator.cli.advice import next_step
from finetune_operator.cli.shown_job import ShownJob
from finetune_operator.cli.table import since, table

LABEL_WIDTH = 11


def describe(job: ShownJob, now: dt.datetime) -> Iterator[str]:
    """Everything that is known, in the order in which people ask."""
    facts = {
        "Name": f"{job.name} (namespace {job.namespace}, {since(job.created, now)} old)",
        "Model": job.model,
        "Method": job.method,
        "Status": job.stage,
        "Progress": progress(job),
        "Data": _data(job),
        "Results": _results(job),
        "Serving": _serving(job),
        "Volume": job.status.volume or "",
        "Next": next_step(job),
    }
    yield from (f"{label + ':':<{LABEL_WIDTH}}{value}" for label, value in facts.items() if value)
    yield from _attempts(job)
    yield from _conditions(job, now)


def progress(job: ShownJob) -> str:
    """Such as ``24%, step 120/500, loss 1.23, 1h20m left``."""
    reported = job.status.progress
    if reported is None:
        return ""
    parts = {
        "{}": reported.percent,
        "step {}": reported.summary,
        "epoch {}": reported.epoch,
        "loss {}": reported.loss,
        "evaluation loss {}": reported.eval_loss,
        "{} tokens/s": reported.tokens_per_second,
        "{} TFLOP/s a GPU": reported.tflops_per_second,
        "{} of its limit": reported.share_of_limit,
        "{} of the time waiting for rows": reported.data_wait_share,
        "{} left": reported.eta,
    }
    return ", ".join(form.format(value) for form, value in parts.items() if value)


def _data(job: ShownJob) -> str:
    data = job.status.dataset
    if data is None:
        return ""
    dropped = f", {data.dropped} dropped (report.json on the volume says why)" if data.dropped else ""
    return f"{data.rows} rows{dropped}, {data.tokens} tokens, {data.trained_tokens} of them learnt"


def _results(job: ShownJob) -> str:
    results = job.status.results
    if results is None:
        return ""
    parts = {
        "{} steps": results.steps,
        "training loss {}": results.train_loss,
        "evaluation loss {}": results.eval_loss,
        "merged weights differ by at most {} in a logit": results.merge_max_difference,
        "merged into the {} weights": results.merge_quantized_base and results.merge_quantized_base.lower(),
        "divergence from the model as trained {} if merged into the original weights": results.merge_kl_original,
        "{} into the dequantized ones": results.merge_kl_dequantized,
    }
    return ", ".join(form.format(value) for form, value in parts.items() if value is not None)


def _serving(job: ShownJob) -> str:
    serving = job.status.serving
    if serving is None or not serving.url:
        return ""
    return f"{serving.url} as model {serving.model_name or job.name}, ready pods: {serving.ready_replicas}"


def _attempts(job: ShownJob) -> Iterator[str]:
    ended = job.status.attempts
    if ended:
        yield "Attempts that ended:"
        rows = [(str(end.number), _text(end.exit_code), end.reason or "", _one_line(end.message)) for end in ended]
        yield from (f"  {line}" for line in table(("NUMBER", "EXIT", "REASON", "MESSAGE"), rows))


def _conditions(job: ShownJob, now: dt.datetime) -> Iterator[str]:
    if job.status.conditions:
        yield "Conditions:"
        rows = [
            (
                entry.type,
                entry.status.value,
                since(entry.last_transition_time, now),
                entry.reason,
                _one_line(entry.message),
            )
            for entry in job.status.conditions
        ]
        yield from (f"  {line}" for line in table(("TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"), rows))


def _text(value: int | None) -> str:
    return "" if value is None else str(value)


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
