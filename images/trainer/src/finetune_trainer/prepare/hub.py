"""Downloads from the Hugging Face hub or a mirror, with errors that say which field, what happened and what to do."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune_operator.api.base import SecretKeyReference
from finetune_operator.api.dataset import Dataset
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig
from finetune_operator.api.source import parse_source
from finetune_trainer.prepare.readers import SUFFIXES, Place, Row, read_rows

# Configuration and tokenizer, and weights as safetensors. Pickled weights and Python code can run anything: never fetched.
TOKENIZER_FILES = (
    "*.json",
    "*.jinja",
    "tokenizer.model",
    "*.tiktoken",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
)
MODEL_FILES = ("*.safetensors", *TOKENIZER_FILES)


def endpoint(run: RunConfig) -> str:
    """Base URL of the hub: the operator's setting, else the environment's, else the library's own."""
    from huggingface_hub import constants

    return run.hub.hugging_face_endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT


def token(run: RunConfig, reference: SecretKeyReference | None, field: str) -> str | None:
    """The access token from the mounted secret. Raises StageFailure where the key is not there."""
    if reference is None:
        return None
    path = Path(run.secrets) / reference.name / reference.key
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"{field}.tokenSecret: secret {reference.name!r} has no key {reference.key!r} at {path} ({error.strerror}); "
            "create the key or correct the name.",
        ) from error


def download_model(run: RunConfig, into: Path, wanted: Sequence[str] = MODEL_FILES) -> Path:
    """Fetch the base model's files, or those ``wanted`` (patterns); what an earlier, killed download left there is gone on with.

    Returns the folder of the model: ``into``, or the folder inside it that the source names.
    """
    from huggingface_hub import HfApi, snapshot_download

    model = run.spec.model
    parsed = parse_source(model.source)
    patterns = [f"{parsed.path}/{pattern}" if parsed.path else pattern for pattern in wanted]
    access: dict[str, Any] = {"endpoint": endpoint(run), "token": token(run, model.token_secret, "spec.model") or False}
    with _explained(run, "spec.model", model.source, model.revision):
        # Asked for by itself: snapshot_download takes a folder that is not empty for the model when the hub is away.
        info = HfApi(**access).model_info(parsed.owner, revision=model.revision, files_metadata=True)
        snapshot_download(
            parsed.owner, revision=info.sha, local_dir=into, cache_dir=_cache(run), allow_patterns=patterns, **access
        )
    sizes = {file.rfilename: file.size for file in info.siblings or [] if _is_wanted(file.rfilename, patterns)}
    short = [name for name, size in sizes.items() if not _has_size(into / name, size)]
    if short:
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"spec.model.source: {model.source}: {len(short)} files did not come whole, such as {short[0]} ({endpoint(run)}). "
            "Start the job again: what has come is kept.",
        )
    shutil.rmtree(into / ".cache", ignore_errors=True)
    return into / parsed.path


def _is_wanted(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def _has_size(path: Path, size: int | None) -> bool:
    return path.is_file() and (size is None or path.stat().st_size == size)


def dataset_rows(run: RunConfig, dataset: Dataset, field: str) -> Iterator[Row]:
    """Rows of a hub dataset: of one file or folder where the source names it, else of its split."""
    if parse_source(dataset.source).path:
        yield from _file_rows(run, dataset, field)
    else:
        yield from _split_rows(run, dataset, field)


def _file_rows(run: RunConfig, dataset: Dataset, field: str) -> Iterator[Row]:
    from huggingface_hub import snapshot_download

    parsed = parse_source(dataset.source)
    with _explained(run, field, dataset.source, dataset.revision):
        folder = snapshot_download(
            parsed.owner,
            repo_type="dataset",
            revision=dataset.revision,
            endpoint=endpoint(run),
            token=token(run, dataset.token_secret, field) or False,
            cache_dir=_cache(run),
            allow_patterns=[parsed.path, *(f"{parsed.path}/*{suffix}" for suffix in SUFFIXES)],
        )
    start = Path(folder) / parsed.path
    files = [start] if start.is_file() else sorted(path for path in start.rglob("*") if path.is_file())
    if not files:
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"{field}.source: {dataset.source}: the repository has no file {parsed.path!r} "
            f"(or {', '.join(SUFFIXES)} files in it); check the path.",
        )
    for path in files:
        yield from read_rows(path, f"hf://{parsed.owner}/{path.relative_to(folder)}")


def _split_rows(run: RunConfig, dataset: Dataset, field: str) -> Iterator[Row]:
    # Read when the library is imported; there is no argument for it.
    os.environ["HF_ENDPOINT"] = endpoint(run)
    import datasets

    access = token(run, dataset.token_secret, field) or False
    try:
        with _explained(run, field, dataset.source, dataset.revision):
            rows = datasets.load_dataset(
                parse_source(dataset.source).owner,
                name=dataset.subset,
                split=dataset.split,
                revision=dataset.revision,
                token=access,
                cache_dir=str(_cache(run)),
            )
    except (ValueError, datasets.exceptions.DatasetsError) as error:
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"{field}.source: {dataset.source}: {_first_line(error)} ({endpoint(run)}). Correct the name, {field}.subset or "
            f"{field}.split, name one file (hf://org/name/file.jsonl), or set {field}.tokenSecret.",
        ) from error
    for number, value in enumerate(rows):
        yield Row(Place(dataset.source, number, is_line=False), value)


def _cache(run: RunConfig) -> Path:
    # On the job's volume: the root file system of a pod may be read-only and small.
    return run.paths.root / ".hub"


@contextmanager
def _explained(run: RunConfig, field: str, source: str, revision: str | None) -> Iterator[None]:
    """Turn the hub's errors into one that names the field, the URI, the cause and the way out."""
    from huggingface_hub import errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the HTTP library that the hub uses

    def failure(cause: str, advice: str) -> StageFailure:
        return StageFailure(
            ExitCode.SOURCE_UNREACHABLE, f"{field}.source: {source}: {cause} ({endpoint(run)}). {advice}"
        )

    secret = f"set {field}.tokenSecret to a Secret with a token that may read it"
    try:
        yield
    except errors.GatedRepoError as error:
        raise failure("the repository is gated", f"Accept its terms on the hub and {secret}.") from error
    except errors.RevisionNotFoundError as error:
        raise failure(f"revision {revision!r} does not exist", f"Correct {field}.revision.") from error
    except errors.RepositoryNotFoundError as error:
        raise failure("no such repository, or it is private", f"Correct the name, or {secret}.") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        advice = (
            f"The token may not read it; {secret}." if status in (401, 403) else "Try again later, or use a mirror."
        )
        raise failure(f"the hub answered {status}", advice) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, HTTPError, ConnectionError) as error:
        raise failure(
            f"the hub cannot be reached: {_first_line(error)}",
            "Check the cluster's way out, set the operator's Hugging Face endpoint to a mirror, or use pvc://CLAIM/PATH.",
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
