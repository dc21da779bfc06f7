"""Downloads a model from the Hugging Face hub: only the needed files, resumed after an interruption."""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pipeline.archive.layout import read_blocks
from pipeline.archive.selection import Dtype, select_files
from pipeline.errors import MarqueeError
from pipeline.progress import Progress, Silent

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

# Repositories that tutorials name and the hub no longer has; same files elsewhere (checked 2026-11-21).
MOVED = {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}

SHA256_CHARACTERS = 64
MOST_CUTS = 5  # of a download in a row, without a byte between them
PAUSE_SECONDS = 1.0  # after a cut


@dataclass(frozen=True)
class HubModel:
    """A repository of the hub, owner/name, and the choice of its files.

    ``revision`` is a branch, tag or commit; None: its main branch.
    """

    repository: str
    revision: str | None = None
    dtype: Dtype = "keep"
    safety_checker: bool = False


def is_hub_id(name: str) -> bool:
    """Whether a name has the hub's form, owner/name."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name) is not None


def fetch_model(wanted: HubModel, progress: Progress) -> Path:
    """Download the files that serve; returns the folder they lie in.

    Raises MarqueeError for a repository, revision or network that is not there.
    """
    from httpx2 import HTTPError
    from huggingface_hub.constants import HF_HOME

    repository = wanted.repository
    try:
        info = _repository_info(repository, wanted.revision)
        sizes = {entry.rfilename: entry.size or 0 for entry in info.siblings or []}
        folder = Path(HF_HOME, "marquee", repository.replace("/", "--"), str(info.sha))

        def read_json(name: str) -> Any:
            _download(f"{repository}@{info.sha}", name, folder, Silent())
            return json.loads((folder / name).read_text(encoding="utf-8"))

        selection = select_files(sizes.keys(), read_json, wanted.dtype, safety_checker=wanted.safety_checker)
        _refuse(repository, selection.problems, selection.has_only_pickles)
        progress.start(f"downloading {repository}", sum(sizes[name] for name in selection.files))
        for name in selection.files:
            _download(f"{repository}@{info.sha}", name, folder, progress)
        return folder
    except (HTTPError, OSError, ValueError, RecursionError) as error:
        raise MarqueeError(
            f"{repository} could not be downloaded: {_first_line(error)}",
            cure="run the same command again: the part that has arrived is kept",
        ) from error
    finally:
        progress.finish()


def _download(commit: str, name: str, folder: Path, progress: Progress) -> None:
    """One file of "owner/name@commit", continued where an earlier run stopped and checked by its digest.

    The hub library's own downloads begin a file anew in every process (its pull request 4228), which for
    gigabytes is no resuming, so the bytes are fetched here, with its addresses, session and headers.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    target = folder / name
    if target.is_file():
        progress.advance(target.stat().st_size)
        return
    repository, _, revision = commit.partition("@")
    url = hf_hub_url(repository, name, revision=revision)
    metadata = get_hf_file_metadata(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    with partial.open("ab") as file:
        progress.advance(file.tell())
        _complete(url, file, metadata.size, progress)
        arrived = file.tell()
    if metadata.size is not None and arrived != metadata.size:
        if arrived > metadata.size:
            partial.unlink()
        raise OSError(f"{name} arrived with {arrived} bytes; the hub says {metadata.size}")
    _check_digest(partial, metadata.etag)
    partial.replace(target)


def _complete(url: str, file: BinaryIO, size: int | None, progress: Progress) -> None:
    """Append what is missing, and go on after a cut; raises TransportError after cuts without a byte."""
    from httpx2 import TransportError

    cuts = 0
    while size is None or file.tell() < size:
        before = file.tell()
        try:
            _append(url, file, progress)
            return
        except TransportError:
            cuts = 0 if file.tell() > before else cuts + 1
            if cuts > MOST_CUTS:
                raise
            time.sleep(PAUSE_SECONDS)


def _append(url: str, file: BinaryIO, progress: Progress) -> None:
    """Ask for what lies beyond the file's end; a server that takes no ranges sends the whole again."""
    from huggingface_hub import hf_raise_for_status
    from huggingface_hub.constants import DOWNLOAD_CHUNK_SIZE, HF_HUB_DOWNLOAD_TIMEOUT

    # Documented, and in the package's __all__, but not for mypy.
    from huggingface_hub.utils import build_hf_headers, http_stream_backoff  # type: ignore[attr-defined]

    arrived = file.tell()
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", "Range": f"bytes={arrived}-"}
    if not arrived:
        del headers["Range"]
    with http_stream_backoff(
        "GET",
        url,
        headers=headers,
        timeout=HF_HUB_DOWNLOAD_TIMEOUT,
        retry_on_exceptions=(),
        retry_on_status_codes=(408, 429),
    ) as response:
        hf_raise_for_status(response)
        if arrived and response.status_code != 206:
            file.truncate(0)
            progress.advance(-arrived)
        for block in response.iter_bytes(chunk_size=DOWNLOAD_CHUNK_SIZE):
            file.write(block)
            progress.advance(len(block))


def _check_digest(path: Path, etag: str | None) -> None:
    """Compare a file with the hub's tag, its SHA-256 for a large file; delete one that does not match."""
    if etag is None or len(etag) != SHA256_CHARACTERS:
        return
    sha256 = hashlib.sha256()
    for block in read_blocks(path, 0, path.stat().st_size):
        sha256.update(block)
    if (found := sha256.hexdigest()) != etag:
        path.unlink()
        raise MarqueeError(
            f"{path.name.removesuffix('.part')} arrived with SHA-256 {found}; the hub says {etag}",
            cure="run the same command again: the file is downloaded anew",
        )


def _repository_info(repository: str, revision: str | None) -> ModelInfo:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return HfApi().model_info(repository, revision=revision, files_metadata=True)
    except GatedRepoError as error:
        raise MarqueeError(
            f"{repository} is gated on the hub",
            cure="accept its terms on its page, then set HF_TOKEN to a token of that account",
        ) from error
    except RevisionNotFoundError as error:
        raise MarqueeError(f"{repository} has no revision {revision!r} on the hub") from error
    except RepositoryNotFoundError as error:
        mirror = MOVED.get(repository)
        raise MarqueeError(
            f"{repository} is neither a folder here nor a repository on the hub that you may read",
            cure=f"its files are now in {mirror}: marquee build --model {mirror}" if mirror else None,
        ) from error


def _refuse(repository: str, problems: tuple[str, ...], has_only_pickles: bool) -> None:
    if not problems:
        return
    cure = None
    if has_only_pickles:
        download = f"hf download {repository} --local-dir model"
        cure = f"{download} && marquee convert model && marquee build --model model"
    raise MarqueeError(
        f"{repository} on the hub cannot be served:" + "".join(f"\n  - {problem}" for problem in problems),
        cure=cure,
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
