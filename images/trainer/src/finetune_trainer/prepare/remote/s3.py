"""Objects of a store that speaks S3, through s3fs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_trainer.prepare.remote import credentials, refusals
from finetune_trainer.prepare.remote.snapshot import RemoteFile, Snapshot, Source, Wanted, content_revision
from finetune_trainer.prepare.remote.verify import md5_fault

if TYPE_CHECKING:
    from s3fs import S3FileSystem

BLOCK = 32 << 20
"""Bytes a request: what a broken connection loses at most."""
MIRROR = refusals.Elsewhere("hub.s3Endpoint", "AWS_ENDPOINT_URL")
_CONNECT_SECONDS = 10


class S3:
    """What lies below a prefix of a bucket, or one object. Paths are those inside the bucket.

    A bucket has no commits: the hash over names, sizes and ETags stands for the revision.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def snapshot(self, wanted: Wanted) -> Snapshot:
        parsed = self._source.parsed
        with self._explained():
            found: dict[str, dict[str, Any]] = self._store.find(f"{parsed.owner}/{parsed.path}", detail=True)
        files = tuple(
            RemoteFile(path, facts["size"], etag=facts["ETag"].strip('"'))
            for path, facts in sorted((name.partition("/")[2], facts) for name, facts in found.items())
            if wanted(path) and not path.endswith("/")
        )
        return Snapshot(content_revision(files), files)

    def fetch(self, file: RemoteFile, snapshot: Snapshot, into: Path) -> Path:
        final = into / file.path
        partial = final.with_name(f"{final.name}.partial")
        final.parent.mkdir(parents=True, exist_ok=True)
        with self._explained():
            self._facts(file, partial)
            self._append(file, partial)
            facts = self._facts(file, partial)
        # An encrypted object's ETag need not be its MD5.
        if "ServerSideEncryption" not in facts and (wrong := md5_fault(partial, file.etag)):
            partial.unlink()
            raise refusals.damaged(self._source, self._host, file.path, wrong)
        return partial.replace(final)

    def _append(self, file: RemoteFile, partial: Path) -> None:
        size, key = file.size or 0, self._key(file)
        with partial.open("ab") as output:
            while (start := output.tell()) < size:
                output.write(self._store.cat_file(key, start=start, end=min(start + BLOCK, size)))
                output.flush()

    def _facts(self, file: RemoteFile, partial: Path) -> dict[str, Any]:
        """What the store says of the object. Raises StageFailure where it is not the listed one any more."""
        facts: dict[str, Any] = self._store.call_s3("head_object", Bucket=self._source.parsed.owner, Key=file.path)
        if (now := facts["ETag"].strip('"')) != file.etag:
            partial.unlink(missing_ok=True)
            cause = f"{file.path} was replaced during the run: its ETag is {now}, was {file.etag}"
            raise refusals.refusal(self._source, self._host, cause, "Start a new job, which reads what is there now.")
        return facts

    def _key(self, file: RemoteFile) -> str:
        return f"{self._source.parsed.owner}/{file.path}"

    @property
    def _host(self) -> str:
        elsewhere = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return self._source.run.hub.s3_endpoint or elsewhere or "Amazon S3"

    @cached_property
    def _store(self) -> S3FileSystem:
        import fsspec

        hub = self._source.run.hub
        keys = credentials.s3_keys(self._source)
        return fsspec.filesystem(
            "s3",
            **(keys or {}),
            anon=keys is None and not _environment_has_keys(),
            endpoint_url=hub.s3_endpoint,
            client_kwargs={"region_name": hub.s3_region} if hub.s3_region else {},
            # Few, as whoever calls has patience of their own.
            config_kwargs={"connect_timeout": _CONNECT_SECONDS, "retries": {"max_attempts": 2, "mode": "standard"}},
            # Listings and clients of one job must not pass for another's.
            skip_instance_cache=True,
            use_listings_cache=False,
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from aiohttp import ClientError
        from botocore import exceptions

        source = self._source
        try:
            yield
        except PermissionError as error:
            raise self._denied(error) from error
        except FileNotFoundError as error:
            raise self._missing() from error
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
            raise self._denied(error) from error
        except exceptions.FlexibleChecksumError as error:
            raise refusals.damaged(source, self._host, "a file", refusals.first_line(error)) from error
        except (
            exceptions.HTTPClientError,
            exceptions.ConnectionError,
            ClientError,
            ConnectionError,
            TimeoutError,
        ) as error:
            raise refusals.away(source, self._host, error, MIRROR) from error
        except (exceptions.BotoCoreError, exceptions.ClientError) as error:
            raise refusals.faulty(source, self._host, refusals.first_line(error)) from error
        except OSError as error:
            # What the store answered hangs below the error that s3fs makes of it; any other is this machine's.
            if not isinstance(error.__cause__, exceptions.ClientError):
                raise
            raise refusals.faulty(source, self._host, refusals.first_line(error.__cause__)) from error

    def _missing(self) -> Exception:
        bucket = self._source.parsed.owner
        return refusals.refusal(
            self._source, self._host, f"no bucket {bucket!r}, or no such object in it", "Correct the URI."
        )

    def _denied(self, error: BaseException) -> Exception:
        cause = f"the object store refused access: {refusals.first_line(error)}"
        advice = (
            f"Set {self._source.field}.tokenSecret to a Secret with the keys {credentials.ACCESS_KEY} and "
            f"{credentials.SECRET_KEY} of an account that may list the bucket and read its objects."
        )
        return refusals.refusal(self._source, self._host, cause, advice)


def _environment_has_keys() -> bool:
    """Whether variables, the user's files, or the pod's or node's identity give credentials."""
    import botocore.session

    return botocore.session.get_session().get_credentials() is not None
