"""Files of a repository on the Hugging Face Hub, of one commit, through the Hub's client and its cache."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from ...version import __version__
from .errors import MissingFileError, download_error
from .request import ask_commit, retry

__all__ = ["HubFile", "HubOptions", "commit_of", "find_file"]

_logger = logging.getLogger(__name__)

_CACHED_TIMEOUT = 3.0
"""Seconds to wait for the server where the cache can answer instead."""


@dataclass(frozen=True)
class HubOptions:
    """How to reach the Hub: the arguments of :func:`mfsf2.create_model` of the same names."""

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    force_download: bool = False
    timeout: float = 10.0


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Attributes:
        repo_id: ``OWNER/NAME``.
        filename: its name in the repository.
        revision: the branch, tag or commit that was asked for.
        commit: the commit, 40 hexadecimal digits.
        options: how to reach it.
        error: why the server was not asked; None if it was, or did not have to be.
    """

    repo_id: str
    filename: str
    revision: str
    commit: str
    options: HubOptions
    error: OSError | None = None

    def fetch(self) -> Path:
        """Its path in the cache, after a download if necessary.

        A busy server is asked again until ``timeout`` has passed without a byte.

        Raises:
            OSError: says what the server said.
        """
        # Of the revision, because the cache then knows its commit when there is no connection.
        cached = _cached(self.repo_id, self.filename, self.revision, self.options)
        if cached is not None and commit_of(cached) == self.commit and not self.options.force_download:
            return cached
        return Path(retry(lambda _: self._download(), self.options.timeout, self._bytes))

    def sibling(self, filename: str, commit: str) -> "HubFile":
        """Another file, of a commit; errors as for :func:`find_file`."""
        options = replace(self.options, revision=commit)
        if self.error is not None and _cached(self.repo_id, filename, commit, options) is None:
            # The server has had its time.
            raise type(self.error)(f"{self.error}; of the commit {commit}, the cache has no {filename}")
        return find_file(self.repo_id, filename, options)

    def _download(self) -> str:
        from huggingface_hub import hf_hub_download

        options = self.options
        try:
            return hf_hub_download(
                self.repo_id,
                self.filename,
                revision=self.revision,
                cache_dir=options.cache_dir,
                token=options.token,
                force_download=options.force_download,
                etag_timeout=options.timeout,
                endpoint=_endpoint(),
                library_name="mfsf2",
                library_version=__version__,
            )
        except Exception as error:
            raise download_error(error, f"{self.repo_id}@{self.revision}: {self.filename}") from error

    def _bytes(self) -> int:
        """Bytes of this repository in the cache."""
        from huggingface_hub.file_download import repo_folder_name

        folder = _cache_folder(self.options) / repo_folder_name(repo_id=self.repo_id, repo_type="model")
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def commit_of(path: Path) -> str:
    """The commit of a file in the cache: ``.../snapshots/COMMIT/...``."""
    parts = path.parts
    return parts[len(parts) - parts[::-1].index("snapshots")]


def find_file(repo: str, filename: str, options: HubOptions) -> HubFile:
    """Find a file of ``OWNER/NAME`` or ``OWNER/NAME@REVISION``: on the server, or in the cache if that cannot answer.

    A commit that is in the cache needs no request.

    Raises:
        ValueError: not the name of a repository, or two revisions.
        FileNotFoundError: the repository, the revision or the file does not exist, or is not in the cache offline.
        PermissionError: the server asks for a token.
        TimeoutError: no answer within ``timeout``.
        ConnectionError: no connection, a busy server, or an answer that is not the Hub's.
    """
    from huggingface_hub.utils import validate_repo_id

    repo_id, _, in_name = repo.partition("@")
    if repo_id.count("/") != 1 or ":" in repo_id:
        raise ValueError(f"{repo!r} is not the name of a repository: use OWNER/NAME or OWNER/NAME@REVISION")
    validate_repo_id(repo_id)
    if in_name and options.revision not in (None, in_name):
        raise ValueError(f"{repo!r} and revision={options.revision!r} name two revisions: pass one of them")
    revision = in_name or options.revision or "main"
    cached = None if options.force_download else _cached(repo_id, filename, revision, options)
    if cached is not None and commit_of(cached) == revision:
        return HubFile(repo_id, filename, revision, revision, options)
    if options.local_files_only or _is_offline():
        if cached is None:
            raise FileNotFoundError(_offline_message(repo_id, filename, revision, options))
        return HubFile(repo_id, filename, revision, commit_of(cached), options)
    what = f"{repo_id}@{revision}: {filename}"
    url = f"{_endpoint()}/{repo_id}/resolve/{quote(revision, safe='')}/{quote(filename)}"
    try:
        if cached is None:
            commit = retry(lambda seconds: ask_commit(url, what, options.token, seconds), options.timeout)
        else:
            commit = ask_commit(url, what, options.token, min(options.timeout, _CACHED_TIMEOUT))
    except MissingFileError:
        raise
    except OSError as error:
        if cached is None:
            raise
        commit = commit_of(cached)
        _logger.warning("%s, so the cached commit %s is used", error, commit)
        return HubFile(repo_id, filename, revision, commit, options, error)
    return HubFile(repo_id, filename, revision, commit, options)


def _offline_message(repo_id: str, filename: str, revision: str, options: HubOptions) -> str:
    from ..bundled import bundled_names

    why = "local_files_only=True" if options.local_files_only else "HF_HUB_OFFLINE=1"
    if options.force_download:
        why += " together with force_download=True"
    return (
        f"{repo_id}@{revision}: {filename} is not in the cache {_cache_folder(options)}, and {why} forbids "
        "downloading it: "
        "create the model once with a connection, or copy that folder from a machine that has it, or pass "
        f"cache_dir=...; these weights come with the package: {', '.join(bundled_names())}"
    )


def _cached(repo_id: str, filename: str, revision: str, options: HubOptions) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo_id, filename, cache_dir=options.cache_dir, revision=revision)
    return Path(path) if isinstance(path, str) else None


def _cache_folder(options: HubOptions) -> Path:
    from huggingface_hub import constants

    return Path(options.cache_dir or constants.HF_HUB_CACHE)


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
