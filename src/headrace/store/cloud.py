"""A `Disk` of objects in a bucket: S3 and what speaks its language, Google Cloud Storage, Azure Blob Storage.

What holds the store together is `put_if_absent`: a put with the condition that the object does not exist, which all
three decide at one place, whoever asks. A `replace` is conditional too, on the version that was there: a request of ours
that was given up and arrives late must not undo what was written since.

Objects are read in blocks, and the blocks that were used last are kept, so that a query asks for the footer of a
segment, the headers of a row group and the payloads it wants, and one that comes again asks for nothing. A request is
tried again where that may help, for `CloudSettings.timeout_s` at most; then the caller gets a `StorageError`.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from headrace.core.clock import NS, monotonic_ns
from headrace.core.disk import AppendFile, Buffer
from headrace.core.errors import ConfigError, HeadraceError, NotFound, StorageError, Undecided
from headrace.store.block_cache import BlockCache

CACHE_BYTES = 128 << 20
"""Memory for blocks that were read."""
_TRIES_MAX = 8
_WAIT_S_MIN, _WAIT_S_MAX = 0.1, 3.0
_STATUS = re.compile(r"status code: (\d+)")
_CODE = re.compile(r"<(?:Code|code)>([^<]+)</")
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
"""Refusals that may be over in a moment."""

_ACCESS = "access is denied; the credentials must let it list, read, write and delete there"
_CREDENTIALS = (
    "the service does not know who we are; give credentials in the environment (AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_KEY) or by the machine's role"
)
_HINTS = {
    400: "the service does not take the request",
    401: _CREDENTIALS,
    403: _ACCESS,
    408: "the service gave no answer in time; it is asked again later",
    429: "the service asks to slow down; it is asked again later",
    501: "the service has no conditional writes, which keep two engines apart; use one that has",
    503: "the service asks to slow down; it is asked again later",
}
_CODES = {
    "NoSuchBucket": "the bucket does not exist; create it, or correct store.url",
    "ContainerNotFound": "the container does not exist; create it, or correct store.url",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "AuthenticationFailed": _CREDENTIALS,
    "NotImplemented": _HINTS[501],
}
_NEVER_ASKED = ("169.254.169.254", "metadata.google", "redirect")
"""In errors of the client that come before a service takes anything."""
_WORDS = {
    "169.254.169.254": _CREDENTIALS,  # where a role of the machine would be asked for
    "metadata.google": _CREDENTIALS,
    "Account must be specified": "name the storage account: store.options.account, or AZURE_STORAGE_ACCOUNT_NAME",
    "bucket does not exist": _CODES["NoSuchBucket"],
    "redirect": "the bucket is in another region; set store.options.region",
    "error sending request": "the service can't be reached; check the network and store.options.endpoint",
}


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """How a bucket is reached. Credentials are none of it: they come from the environment.

    Parameters
    ----------
    endpoint : of the service, where it is not the provider's own. account : Azure's storage account.
    ca_file : PEM certificates to trust besides the system's. timeout_s : bound of a request, with all its tries.
    """

    endpoint: str = ""
    region: str = ""
    account: str = ""
    ca_file: str = ""
    timeout_s: float = 30.0


class CloudDisk:
    """Objects below ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``.

    Raises
    ------
    ConfigError : the settings can't be. Nothing is asked for yet.
    """

    n_reads_at_once = 16

    def __init__(
        self, url: str, settings: CloudSettings | None = None, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.url = url.rstrip("/")
        self._settings = settings or CloudSettings()
        self._cache = BlockCache(cache_bytes)
        self._ahead: dict[str, memoryview] = {}
        self._never = threading.Event()
        try:
            self._store = _connect(self.url, self._settings, _TRIES_MAX)
            # Its own repetitions would hide whose object it is that exists.
            self._once = _connect(self.url, self._settings, 0)
        except (BaseError, ValueError, OSError) as e:
            raise ConfigError(f"can't use {self.url}: {_why(e)}", "store.url") from e

    # --- reading -------------------------------------------------------------------------------------

    def read(self, path: str) -> memoryview:
        """The whole object."""
        ahead = self._ahead.pop(path, None)
        if ahead is not None:
            return ahead
        with self._told("read", path):
            return memoryview(obstore.get(self._store, path).bytes())

    def prefetch(self, paths: Sequence[str]) -> None:
        """Fetch objects together; what can't be had is asked for again when it is read."""
        if len(paths) > 1:
            with ThreadPoolExecutor(self.n_reads_at_once) as pool:
                found = pool.map(self._try_read, paths)
                self._ahead = {
                    path: data for path, data in zip(paths, found, strict=True) if data is not None
                }

    def _try_read(self, path: str) -> memoryview | None:
        try:
            return self.read(path)
        except HeadraceError:
            return None

    def open(self, path: str, size_bytes: int | None = None) -> CloudFile:
        """The object, to be read in parts."""
        return CloudFile(self, path, self.size(path) if size_bytes is None else size_bytes)

    def read_ranges(self, path: str, starts: Sequence[int], ends: Sequence[int]) -> list[memoryview]:
        """Parts of an object; parts that are near each other are fetched in one request, others side by side."""
        with self._told("read", path):
            found = obstore.get_ranges(self._store, path, starts=starts, ends=ends)
            return [memoryview(one) for one in found]

    def blocks(
        self, path: str, size_bytes: int, starts: Sequence[int], ends: Sequence[int]
    ) -> Callable[[int, int], Buffer]:
        """Reads parts [start, end) out of blocks, all of which are in memory: kept, or fetched now."""

        def fetch(some_starts: Sequence[int], some_ends: Sequence[int]) -> list[memoryview]:
            return self.read_ranges(path, some_starts, some_ends)

        return self._cache.reader(path, size_bytes, (starts, ends), fetch)

    def list(self, folder: str) -> list[str]:
        """Paths below `folder`, sorted."""
        return sorted(self.sizes(folder))

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each object below `folder`, which a listing tells without a question for each."""
        with self._told("list", folder):
            return {
                str(one["path"]): int(one["size"])
                for some in obstore.list(self._store, folder, chunk_size=1_000)
                for one in some
            }

    def size(self, path: str) -> int:
        """Bytes of an object."""
        with self._told("look at", path):
            return int(obstore.head(self._store, path)["size"])

    def free_bytes(self) -> int:
        """A bucket has no bound that we could know."""
        return 1 << 62

    # --- writing -------------------------------------------------------------------------------------

    def put_if_absent(self, path: str, data: Buffer) -> bool:
        """Create an object; of all who try, one is told True.

        Where an answer was lost the object is read back: if it is what we wrote, it is ours.

        Raises
        ------
        Undecided : the answer to a request was lost, and no other came in time. StorageError : nothing was written.
        """
        whole, is_unsure = memoryview(data).cast("B"), False
        until_ns = monotonic_ns() + int(self._settings.timeout_s * NS)
        for n in range(_TRIES_MAX):
            try:
                obstore.put(self._once, path, whole, mode="create", use_multipart=False)
                return True
            except AlreadyExistsError:
                # Also said where another's attempt was under way, which may have come to nothing.
                there = self._there(path, is_unsure)
                if there is not None:
                    return is_unsure and there == whole
            except (BaseError, OSError) as e:
                is_unsure |= not _was_refused(e)
                if not _may_pass(e) or n == _TRIES_MAX - 1 or monotonic_ns() > until_ns:
                    error = self._error("write", path, e)
                    raise (Undecided(str(error)) if is_unsure else error) from e
            if monotonic_ns() > until_ns:
                break
            self._never.wait(min(_WAIT_S_MIN * 2**n, _WAIT_S_MAX))
        text = f"can't write {self.url}/{path}: others write it and remove it again; stop them"
        raise Undecided(text) if is_unsure else StorageError(text)

    def _there(self, path: str, is_wanted: bool) -> memoryview | None:
        """What is at a path, or only that something is; None where there is nothing."""
        try:
            if is_wanted:
                return self.read(path)
            self.size(path)
        except NotFound:
            return None
        except StorageError as e:
            raise (Undecided(str(e)) if is_wanted else e) from e
        return memoryview(b"")

    def replace(self, path: str, data: Buffer) -> None:
        """Create or swap an object; whole, or not at all."""
        whole = memoryview(data).cast("B")
        with self._told("write", path, is_write=True):
            for n in range(_TRIES_MAX):
                try:
                    obstore.put(self._store, path, whole, mode=self._version(path), use_multipart=False)
                    break
                except (
                    AlreadyExistsError,
                    PreconditionError,
                ):  # a request that we had given up came in between
                    if n == _TRIES_MAX - 1:
                        raise
        self._forget(path)

    def swap(self, path: str, before: Buffer | None, data: Buffer) -> bool:
        """Put an object where one of exactly that content is, or none; False, and no change, where it is another by now."""
        whole = memoryview(data).cast("B")
        self._forget(path)
        with self._told("write", path, is_write=True):
            try:
                mode: Any = "create"
                if before is not None:
                    there = obstore.get(self._store, path)
                    if memoryview(there.bytes()) != memoryview(before):
                        return False
                    mode = {name: there.meta[name] for name in ("e_tag", "version") if there.meta[name]}
                obstore.put(self._store, path, whole, mode=mode, use_multipart=False)
                return True
            except (AlreadyExistsError, PreconditionError):
                pass  # also said where an earlier try of the same request was taken
        with contextlib.suppress(NotFound):
            return self.read(path) == whole
        return False

    def _version(self, path: str) -> Any:
        """What to write over: the version that is there, or nothing."""
        try:
            there = obstore.head(self._store, path)
        except FileNotFoundError:
            return "create"
        return {name: there[name] for name in ("e_tag", "version") if there[name]}

    def delete(self, path: str) -> None:
        """Remove an object; no error where it is gone already."""
        with contextlib.suppress(NotFound), self._told("delete", path):
            obstore.delete(self._store, path)
        self._forget(path)

    def _forget(self, path: str) -> None:
        """Let go of what was read of it."""
        self._ahead.pop(path, None)
        self._cache.forget(path)

    def append(self, path: str) -> AppendFile:
        """Objects do not grow."""
        raise StorageError(f"can't create {self.url}/{path}: what grows is kept in a folder, not in a bucket")

    def truncate(self, path: str, size_bytes: int) -> None:
        """Objects are not cut."""
        raise StorageError(f"can't repair {self.url}/{path}: objects are whole or not there")

    # --- errors --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _told(self, action: str, path: str, *, is_write: bool = False) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as e:
            raise self._error(action, path, e, is_write=is_write) from e

    def _error(self, action: str, path: str, error: Exception, *, is_write: bool = True) -> HeadraceError:
        # A service that finds no bucket says the same "not found" as one that finds no object.
        is_gone = isinstance(error, FileNotFoundError) and not is_write
        if is_gone and not any(code in str(error) for code in ("NoSuchBucket", "ContainerNotFound")):
            return NotFound(f"{self.url}/{path} does not exist")
        return StorageError(f"can't {action} {self.url}/{path}: {_why(error)}")


class CloudFile:
    """An object, read block by block.

    Parameters
    ----------
    size_bytes : what it should have; what it has where nothing can be read of that.
    """

    def __init__(self, disk: CloudDisk, path: str, size_bytes: int) -> None:
        self._disk, self._path = disk, path
        self.size_bytes = size_bytes
        try:
            disk.blocks(path, size_bytes, [max(0, size_bytes - 1)], [size_bytes])  # with the end of the file
        except StorageError:
            there = disk.size(path)
            if there == size_bytes:
                raise
            self.size_bytes = there  # the caller finds that it is not what was expected

    def read(self, start: int, end: int) -> Buffer:
        """Bytes [start, end)."""
        return self.read_many([start], [end])[0]

    def read_many(self, starts: Sequence[int], ends: Sequence[int]) -> list[Buffer]:
        """Several parts; what is not kept of them is fetched together."""
        part = self._disk.blocks(self._path, self.size_bytes, starts, ends)
        return [part(a, b) for a, b in zip(starts, ends, strict=True)]


def _connect(url: str, settings: CloudSettings, n_tries: int) -> Any:
    """A client of obstore; nothing is sent yet."""
    parts = urlsplit(url)
    bucket, prefix = parts.netloc, parts.path.strip("/") or None
    timeout = datetime.timedelta(seconds=settings.timeout_s)
    shared: dict[str, Any] = {
        "prefix": prefix,
        "client_options": _client_options(settings),
        "retry_config": {"max_retries": n_tries, "retry_timeout": timeout},
    }
    if parts.scheme == "gs":
        return GCSStore(bucket, **shared, **_given(base_url=settings.endpoint))
    if parts.scheme == "az":
        return AzureStore(
            bucket, **shared, **_given(account_name=settings.account, endpoint=settings.endpoint)
        )
    return S3Store(bucket, **shared, **_given(endpoint=settings.endpoint, region=settings.region))


def _client_options(settings: CloudSettings) -> dict[str, Any]:
    endpoint = settings.endpoint or os.environ.get("AWS_ENDPOINT_URL", "")
    options: dict[str, Any] = {"timeout": datetime.timedelta(seconds=settings.timeout_s)}
    if endpoint.startswith("http://"):
        options["allow_http"] = True
    if settings.ca_file:
        options["root_certificate"] = Path(settings.ca_file).read_bytes()
    return options


def _given(**values: str) -> dict[str, Any]:
    """What is set; obstore looks for the rest in the environment."""
    return {name: value for name, value in values.items() if value}


def _status(text: str) -> int:
    found = _STATUS.search(text)
    return int(found[1]) if found else 0


def _may_pass(error: Exception) -> bool:
    text = str(error)
    return _status(text) in _PASSING or ("error sending request" in text and "169.254" not in text)


def _was_refused(error: Exception) -> bool:
    """Whether nothing was done: the service said so, or was never asked. False in doubt."""
    text = str(error)
    status = _status(text)
    if status:
        return status < 500 and status not in _PASSING
    is_refusal = isinstance(error, (FileNotFoundError, PermissionDeniedError, UnauthenticatedError))
    return is_refusal or any(word in text for word in _NEVER_ASKED)


def _why(error: Exception) -> str:
    """What the service said, as a sentence with what to do."""
    text = str(error).partition("\n\nDebug source")[0]
    code, status = _CODE.search(text), _status(text)
    if code and code[1] in _CODES:
        return _CODES[code[1]]
    for word, hint in _WORDS.items():
        if word in text:
            return hint
    said = f" ({status}{' ' + code[1] if code else ''})" if status else ""
    if status in _HINTS:
        return _HINTS[status] + said
    if status >= 500:
        return f"the service has a fault of its own{said}; it is asked again later"
    return text.replace("\n", " ")[:300]
