"""Upload the merged model to where merge.push says."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from finetune_operator.api.delivery import Push
from finetune_operator.api.outcome import ExitCode, StageFailure
from finetune_operator.api.run import RunConfig

_SCHEME = "hf://"


def check_target(push: Push) -> None:
    """Refuse a target that cannot be pushed to, before any work is done. Raises StageFailure (INVALID_SPEC)."""
    if not push.target.startswith(_SCHEME) or push.target.removeprefix(_SCHEME).count("/") != 1:
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            f"merge.push.target: {push.target} cannot be pushed to; this version pushes to hf://org/name only. "
            "Change it, or remove merge.push and copy the model from the job's volume.",
        )


def push_model(run: RunConfig, push: Push, folder: Path) -> str:
    """Upload the folder; returns the address of the commit. Uploading what is there already is quick and changes nothing."""
    api = HfApi(endpoint=run.hub.hugging_face_endpoint, token=_token(run, push) or False)
    repository = push.target.removeprefix(_SCHEME)
    try:
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=f"Model tuned by FineTuneJob {run.name}"
        )
    except HfHubHTTPError as error:
        raise StageFailure(
            ExitCode.SOURCE_UNREACHABLE,
            f"merge.push.target: {push.target} refused the upload: {error}. Check that the token of "
            f"merge.push.tokenSecret may write there; the merged model is on the volume at {folder}.",
        ) from error
    return commit.commit_url


def _token(run: RunConfig, push: Push) -> str | None:
    if push.token_secret is None:
        return None
    path = Path(run.secrets) / push.token_secret.name / push.token_secret.key
    try:
        return path.read_text().strip()
    except OSError as error:
        raise StageFailure(
            ExitCode.INVALID_SPEC,
            f"merge.push.tokenSecret: Secret {push.token_secret.name} has no key {push.token_secret.key} ({error}).",
        ) from error
