"""A model from the Hugging Face hub: only the files that serve, resumed where a download was cut."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.archive.selection import select_files
from pipeline.errors import MarqueeError
from pipeline.progress import Progress

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

    from pipeline.archive.build import BuildConfig

# Repositories that tutorials name and the hub no longer has; same files elsewhere (checked 2026-11-21).
MOVED = {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}


def is_hub_id(name: str) -> bool:
    """Whether a name has the hub's form, owner/name."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name) is not None


def fetch_model(config: BuildConfig, progress: Progress) -> Path:
    """Download what is needed of ``config.model`` at its revision; returns the folder in the hub's cache.

    Raises MarqueeError for a repository, revision or network that is not there.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository = config.model
    try:
        info = _repository_info(repository, config.revision)
        sizes = {entry.rfilename: entry.size or 0 for entry in info.siblings or []}

        def download(name: str) -> Path:
            return Path(hf_hub_download(repository, name, revision=info.sha, tqdm_class=_bar_class(progress)))

        def read_json(name: str) -> Any:
            return json.loads(download(name).read_text(encoding="utf-8"))

        selection = select_files(sizes.keys(), read_json, config.dtype, safety_checker=config.safety_checker)
        _refuse(repository, selection.problems, selection.has_only_pickles)
        progress.start(f"downloading {repository}", sum(sizes[name] for name in selection.files))
        folders = [download(name) for name in selection.files]
        return folders[0].parent
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MarqueeError(
            f"{repository} could not be downloaded: {_first_line(error)}",
            cure="run the same command again: what has arrived is kept",
        ) from error
    finally:
        progress.finish()


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
            cure=f"its files live on in {mirror}: marquee build --model {mirror}" if mirror else None,
        ) from error


def _refuse(repository: str, problems: tuple[str, ...], has_only_pickles: bool) -> None:
    if not problems:
        return
    cure = None
    if has_only_pickles:
        cure = f"hf download {repository} --local-dir model; then build from it, which names the conversion"
    raise MarqueeError(
        f"{repository} on the hub cannot be served:" + "".join(f"\n  - {problem}" for problem in problems),
        cure=cure,
    )


def _bar_class(progress: Progress) -> type[Any]:
    """The hub library's progress bar, made to report to ours."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *_arguments: Any, **options: Any) -> None:
            super().__init__(disable=True)
            progress.advance(int(options.get("initial") or 0))

        def update(self, n: float | None = 1) -> None:
            progress.advance(int(n or 0))

    return Bar


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
