"""Repositories of ModelScope, through the client that the modelscope library itself downloads with (modelscope_hub).

``import modelscope`` would load torch and transformers to no use here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_trainer.prepare.remote import credentials, refusals
from finetune_trainer.prepare.remote.snapshot import RemoteFile, Snapshot, Source, Wanted, content_revision

if TYPE_CHECKING:
    from modelscope_hub import HubApi, HubConfig

DEFAULT_REVISION = "master"
MIRROR = refusals.Elsewhere("hub.modelScopeEndpoint", "MODELSCOPE_ENDPOINT")


class ModelScope:
    """A repository of ModelScope.

    The hub tells no commit, but the SHA-256 of every file: the hash over that list stands for the revision.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def snapshot(self, wanted: Wanted) -> Snapshot:
        with self._explained():
            listed = self._api.list_repo_files(self._source.parsed.owner, self._source.kind, revision=self._branch)
        files = tuple(
            # The client gives 0 for sizes that it does not know.
            RemoteFile(entry.path, entry.size or None, entry.sha256 or None)
            for entry in sorted(listed, key=lambda entry: entry.path)
            if entry.type != "tree" and wanted(entry.path)
        )
        return Snapshot(content_revision(files), files)

    def fetch(self, file: RemoteFile, snapshot: Snapshot, into: Path) -> Path:
        with self._explained():
            return self._api.download_file(
                self._source.parsed.owner,
                self._source.kind,
                file.path,
                revision=self._branch,
                local_dir=into,
                cache_dir=into,
                expected_sha256=file.sha256,
                file_size=file.size,
            )

    @property
    def _branch(self) -> str:
        return self._source.revision or DEFAULT_REVISION

    @cached_property
    def _config(self) -> HubConfig:
        from modelscope_hub import HubConfig

        # Without an endpoint or a token of ours, MODELSCOPE_ENDPOINT (or _DOMAIN), MODELSCOPE_API_TOKEN or the user's login counts.
        source = self._source
        return HubConfig(endpoint=source.run.hub.model_scope_endpoint, token=credentials.token(source))

    @cached_property
    def _api(self) -> HubApi:
        from modelscope_hub import HubApi

        return HubApi(self._config)

    @property
    def _host(self) -> str:
        return self._config.endpoint or ""

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from modelscope_hub import errors

        source = self._source
        try:
            yield
        except errors.FileDownloadError as error:
            raise self._fault(next(iter(error.failed_files.values()), error)) from error
        except (errors.HubError, ConnectionError) as error:
            raise self._fault(error) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise refusals.away(source, self._host, error, MIRROR) from error

    def _fault(self, error: BaseException) -> Exception:
        from modelscope_hub import errors

        source, secret = self._source, refusals.secret_advice(self._source)
        if isinstance(error, (errors.AuthenticationError, errors.PermissionDeniedError)):
            cause = f"the hub answered {error.status_code}"
            return refusals.refusal(source, self._host, cause, f"The token may not read it; {secret}.")
        if isinstance(error, errors.NotExistError):
            return self._missing()
        if isinstance(error, errors.FileIntegrityError):
            return refusals.damaged(source, self._host, "a file", error.message)
        if isinstance(error, (errors.NetworkError, errors.RequestTimeoutError)):
            return refusals.away(source, self._host, error, MIRROR)
        return refusals.faulty(source, self._host, getattr(error, "status_code", None) or refusals.first_line(error))

    def _missing(self) -> Exception:
        """The hub answers 404 for a repository and for a revision alike."""
        from modelscope_hub import errors

        source = self._source
        try:
            self._api.legacy.get_repo_info(source.parsed.owner, source.kind)
        except errors.HubError:
            advice = f"Correct the name, or {refusals.secret_advice(source)}."
            return refusals.refusal(source, self._host, "no such repository, or it is private", advice)
        cause = f"revision {self._branch!r} does not exist"
        return refusals.refusal(source, self._host, cause, f"Correct {source.field}.revision.")
