"""Repositories of the Hugging Face hub or of a mirror."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from finetune_operator.api.run import RunConfig
from finetune_trainer.prepare.remote import credentials, refusals
from finetune_trainer.prepare.remote.inner_addresses import InnerAddress, watch_redirects
from finetune_trainer.prepare.remote.snapshot import RemoteFile, Snapshot, Source, Wanted

if TYPE_CHECKING:
    from huggingface_hub import HfApi, HfFileMetadata
    from huggingface_hub.hf_api import RepoSibling

MIRROR = refusals.Elsewhere("hub.huggingFaceEndpoint", "HF_ENDPOINT")


def endpoint(run: RunConfig) -> str:
    """Base URL of the hub: the operator's setting, else the environment's, else the library's own."""
    from huggingface_hub import constants

    return run.hub.hugging_face_endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT


def access_token(source: Source) -> str | bool:
    """The token of the source's Secret, else of the user's own login; False where there is none, so that none is sent."""
    from huggingface_hub import get_token

    return credentials.token(source) or get_token() or False


class HuggingFace:
    """A repository of the hub."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._endpoint = endpoint(source.run)

    def snapshot(self, wanted: Wanted) -> Snapshot:
        ask = self._api.model_info if self._source.kind == "model" else self._api.dataset_info
        with explained(self._source):
            info = ask(self._source.parsed.owner, revision=self._source.revision, files_metadata=True)
        files = (_file(sibling) for sibling in info.siblings or [] if wanted(sibling.rfilename))
        return Snapshot(info.sha or self._source.revision or "main", tuple(files))

    def fetch(self, file: RemoteFile, snapshot: Snapshot, into: Path) -> Path:
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

        named: dict[str, Any] = {"repo_type": self._source.kind, "revision": snapshot.revision}
        with explained(self._source):
            url = hf_hub_url(self._source.parsed.owner, file.path, endpoint=self._endpoint, **named)
            facts = get_hf_file_metadata(url, **self._access)
            if facts.xet_file_data is None or constants.HF_HUB_DISABLE_XET:
                return self._fetch_resumably(url, facts, into / file.path)
            # Only the library speaks Xet, which is faster, in pieces of several files at once.
            hf_hub_download(self._source.parsed.owner, file.path, local_dir=into, **named, **self._access)
        return into / file.path

    def _fetch_resumably(self, url: str, facts: HfFileMetadata, final: Path) -> Path:
        """By HTTP. The library's own download throws away what a process that was killed had fetched of a file."""
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # documented, but not in __all__

        headers = build_hf_headers(token=self._access["token"])
        if urlsplit(facts.location).netloc != urlsplit(url).netloc:
            # The file lies on another server, which the token is none of the business of.
            headers.pop("authorization", None)
        partial = final.with_name(f"{final.name}.partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as output:
            http_get(facts.location, output, resume_size=output.tell(), headers=headers, expected_size=facts.size)
        return partial.replace(final)

    @cached_property
    def _access(self) -> dict[str, Any]:
        watch_redirects()
        return {"endpoint": self._endpoint, "token": access_token(self._source)}

    @cached_property
    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(**self._access)


def _file(sibling: RepoSibling) -> RemoteFile:
    return RemoteFile(sibling.rfilename, sibling.size, sibling.lfs.sha256 if sibling.lfs else None)


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """Turn the library's errors into one that names the field, the URI, the cause and the way out."""
    from huggingface_hub import errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the HTTP library that the hub uses

    host, secret = endpoint(source.run), refusals.secret_advice(source)
    try:
        yield
    except InnerAddress as error:
        raise refusals.refusal(source, host, str(error), "Ask whoever runs that hub or mirror.") from error
    except errors.GatedRepoError as error:
        advice = f"Accept its terms on the hub and {secret}."
        raise refusals.refusal(source, host, "the repository is gated", advice) from error
    except errors.RevisionNotFoundError as error:
        cause = f"revision {source.revision!r} does not exist"
        raise refusals.refusal(source, host, cause, f"Correct {source.field}.revision.") from error
    except errors.RepositoryNotFoundError as error:
        cause = "no such repository, or it is private"
        raise refusals.refusal(source, host, cause, f"Correct the name, or {secret}.") from error
    except errors.HfHubHTTPError as error:
        raise _answered(source, host, error.response.status_code if error.response is not None else 0) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, HTTPError, ConnectionError) as error:
        raise refusals.away(source, host, error, MIRROR) from error
    except OSError as error:
        # The library says with a bare OSError that a file came short; one with a number is this machine's.
        if error.errno is not None:
            raise
        raise refusals.damaged(source, host, "a file", refusals.first_line(error)) from error


def _answered(source: Source, host: str, status: int) -> Exception:
    if status in (401, 403):
        advice = f"The token may not read it; {refusals.secret_advice(source)}."
        return refusals.refusal(source, host, f"the hub answered {status}", advice)
    return refusals.faulty(source, host, status or "an error")
