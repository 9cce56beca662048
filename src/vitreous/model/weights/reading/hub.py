"""Name of a repository -> a folder with its files, from the cache or downloaded, the same as at the first download.

A name is `organization/name`, or `organization/name@revision`. The first download records the commit and the SHA-256 of
each file. From then on, this commit is used and its files are compared, so that weights never change unnoticed.
"""

import json
import queue
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any

from vitreous import atomic
from vitreous.errors import DamagedFileError, MissingDependencyError, NotARunError, SaveError, VitreousError
from vitreous.model.weights.reading.hub_names import PREFIX, split
from vitreous.model.weights.reading.kinds import SETTINGS
from vitreous.paths import cache_folder_of, sha256
from vitreous.wording import printable_error

__all__ = ["PREFIX", "Report", "Stored", "fetch", "stored"]

WANTED = (*SETTINGS, "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")
"""Files that are downloaded: descriptions and safetensors, never pickles."""

_ANSWER_S, _PATIENCE_S = 10.0, 120.0

Report = Callable[[float, float], None]
"""(bytes of a file so far, bytes of the file) -> None."""


@dataclass(frozen=True)
class Stored:
    """An earlier download: name and commit of the repository, where its files are, and the checksum of each."""

    repo: str
    revision: str
    folder: Path
    sha256: dict[str, str]

    @property
    def source(self) -> str:
        """The name that always opens these files."""
        return f"{PREFIX}{self.repo}@{self.revision}"

    @property
    def is_complete(self) -> bool:
        """True if all files are there; their content is compared when they are opened."""
        return bool(self.sha256) and all((self.folder / file).is_file() for file in self.sha256)


def stored(name: str) -> Stored | None:
    """Return the record of an earlier download, without asking the network; None if there is none."""
    repo, revision = split(name)
    found = [entry for entry in _read(repo) if revision in (None, entry.revision)]
    return found[-1] if found else None


def fetch(
    name: str,
    *,
    answer_s: float = _ANSWER_S,
    patience_s: float = _PATIENCE_S,
    report: Report | None = None,
    renew: bool = False,
) -> Path:
    """Return the folder with the files of a repository; what is not in the cache is downloaded.

    Args:
        name: `organization/name`, optionally with `@revision`.
        answer_s: Time within which the hub must answer, in seconds.
        patience_s: Time within which a download must get ahead, in seconds; huggingface_hub reports each 10 MB.
        report: Called during a download; None shows the progress bar of huggingface_hub, and waits as long as it does.
        renew: Replace files whose content has changed on the hub.

    Raises:
        NotARunError: There is no such repository, or the hub cannot be reached.
        DamagedFileError: A file is not the one that was downloaded first, or not the one that the hub announced.
        MissingDependencyError: huggingface_hub is not installed.
    """
    known = stored(name)
    if known is not None:
        changed = [file for file in known.sha256 if _sha256(known.folder / file) not in (None, known.sha256[file])]
        if changed and not renew:
            path = known.folder / changed[0]
            raise DamagedFileError(
                f"{path}: has changed since it was downloaded; run `vitreous models get {known.repo}` to replace it"
            )
        for file in changed:
            _remove(known.folder / file)
        if known.is_complete:
            return known.folder
    repo, revision = split(name)
    revision = known.revision if known is not None else revision
    try:
        folder = _download(repo, revision, (answer_s, patience_s), report)
    except Exception as error:  # those of its HTTP client too, which is another one in each version
        local = None if isinstance(error, VitreousError) else _downloaded_by_others(repo, revision)
        if local is None:
            raise _explained(name, error) from error
        folder = local
    files = [path for path in sorted(folder.iterdir()) if _is_wanted(path.name)]
    fresh = Stored(repo, folder.name, folder, {path.name: str(_sha256(path)) for path in files})
    known = known or stored(f"{repo}@{folder.name}")  # a branch may be at a commit that was downloaded before
    _compare(fresh, known)
    if known is None or known.folder != folder:
        with suppress(SaveError):  # without a record, the next download is the first one again
            _write([entry for entry in _read(repo) if entry.revision != fresh.revision] + [fresh])
    return folder


def _compare(fresh: Stored, known: Stored | None) -> None:
    """Raise DamagedFileError, and remove the file, unless it is what the hub announced and what was there before."""
    for file, got in fresh.sha256.items():
        announced = (fresh.folder / file).resolve().name  # the cache names large files by their SHA-256
        expected = announced if re.fullmatch("[0-9a-f]{64}", announced) else got
        if got != expected:
            _remove(fresh.folder / file)
            raise DamagedFileError(
                f"{fresh.repo}/{file}: has SHA-256 {got[:12]}…, but the hub announced {expected[:12]}…; download again"
            )
        before = got if known is None else known.sha256.get(file, got)
        if got != before:
            _remove(fresh.folder / file)
            raise DamagedFileError(
                f"{fresh.repo}/{file}: has SHA-256 {got[:12]}…, but the first download of this commit had "
                f"{before[:12]}…; if you trust the new file, remove {_record(fresh.repo)}"
            )


def _download(repo: str, revision: str | None, limits_s: tuple[float, float], report: Report | None) -> Path:
    """Download the wanted files, in the time that `fetch` allows."""
    from huggingface_hub import HfApi, hf_hub_download

    answer_s, patience_s = limits_s
    info = _in_time(lambda _: HfApi().model_info(repo, revision=revision, timeout=2 * answer_s), answer_s)
    files = [sibling.rfilename for sibling in info.siblings or () if _is_wanted(sibling.rfilename)]
    if not any(file.endswith(".safetensors") for file in files):
        raise NotARunError(f"{PREFIX}{repo}: the repository has no .safetensors file; give one that has")

    def download(tell: Report | None) -> list[str]:
        bar = None if tell is None else _bar(tell)
        return [hf_hub_download(repo, file, revision=info.sha, tqdm_class=bar) for file in files]

    return Path((download(None) if report is None else _in_time(download, patience_s, report))[0]).parent


def _explained(name: str, error: Exception) -> VitreousError:
    """Return the error in one line."""
    if isinstance(error, VitreousError):
        return error
    if isinstance(error, ImportError):
        return MissingDependencyError(
            f"{PREFIX}{name}: needs huggingface_hub, which is not installed; run pip install 'vitreous[hub]'"
        )
    return NotARunError(
        f"{PREFIX}{name}: cannot be downloaded ({printable_error(error)}); check the name and the network, or log in"
    )


def _downloaded_by_others(repo: str, revision: str | None) -> Path | None:
    """Return the folder of what other programs have downloaded; None if there are no weights."""
    with suppress(Exception):  # invalid names, and caches that do not have it
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
        return folder if any(folder.glob("*.safetensors")) else None
    return None


def _in_time(work: Callable[[Report], Any], limit_s: float, report: Report = lambda done, total: None) -> Any:
    """Return what a function returns; raise TimeoutError if it neither returns nor reports within the limit.

    It runs in a thread: looking up the address of a host can take longer than any timeout of a connection, and
    huggingface_hub tries again for minutes.
    """
    events: queue.Queue[Any] = queue.Queue()
    is_stopped = threading.Event()

    def tell(done: float, total: float) -> None:
        if is_stopped.is_set():
            raise InterruptedError("this download was given up")
        events.put((done, total))

    def run() -> None:
        try:
            events.put([work(tell)])
        except Exception as error:
            events.put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while isinstance(event := events.get(timeout=limit_s), tuple):
            report(*event)
    except queue.Empty:
        raise TimeoutError(f"no answer within {limit_s:g} s") from None
    except KeyboardInterrupt:
        is_stopped.set()
        thread.join(1.0)  # time to remove its temporary file
        raise
    finally:
        is_stopped.set()
    if isinstance(event, Exception):
        raise event
    return event[0]


def _bar(report: Report) -> type:
    """Return a progress bar that reports instead of printing."""
    from huggingface_hub.utils.tqdm import tqdm

    def update(bar: Any, num_bytes: float = 1) -> None:
        bar.n += num_bytes
        report(bar.n, bar.total or bar.n)

    return type("Bar", (tqdm,), {"update": update, "display": lambda *_: None})


def _is_wanted(file: str) -> bool:
    return "/" not in file and any(fnmatch(file, pattern) for pattern in WANTED)


def _remove(path: Path) -> None:
    """Remove a file of the cache and the content that it links to, so that it is downloaded again."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _sha256(path: Path) -> str | None:
    """Return the checksum of a file, computed once while its size and time stay the same; None if it is missing."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return _sha256_of(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256_of(path: Path, size: int, mtime_ns: int) -> str:
    return sha256(path)


def _record(repo: str) -> Path:
    return cache_folder_of("hub") / f"{repo.replace('/', '--')}.json"


def _read(repo: str) -> list[Stored]:
    """Return the recorded downloads of a repository, the latest last."""
    path = _record(repo)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return [Stored(repo, str(one["revision"]), Path(one["folder"]), dict(one["sha256"])) for one in entries]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise DamagedFileError(
            f"{path}: cannot be read ({printable_error(error)}); remove it, and the next download is recorded again"
        ) from error


def _write(entries: list[Stored]) -> None:
    path = _record(entries[0].repo)
    written = [{"revision": one.revision, "folder": str(one.folder), "sha256": one.sha256} for one in entries]
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, json.dumps(written, indent=2) + "\n")
