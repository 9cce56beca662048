"""Run, name of a repository -> the files for the hub in a folder, and their upload in one commit that is compared."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vitreous.errors import ConfigError, DamagedFileError, SaveError, optional_module
from vitreous.model.weights.reading.hub_names import PREFIX, repository
from vitreous.paths import expanded, sha256
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.export.description import describe
from vitreous.use.export.hub.card import write_readme
from vitreous.use.export.hub.library import LIBRARIES, write_library
from vitreous.use.export.scratch import full_disk_explained
from vitreous.use.export.snippet import library_snippet
from vitreous.use.predict.predictor import Predictor, find_model
from vitreous.wording import listed, printable_error

NEW, SAME, OTHER = "new", "already there", "replaces another"
_DENIED = (401, 403)
_DESCRIPTIONS = ("config.json", "preprocessor_config.json")
_PREFERRED = ("timm", "hf")
"""Formats in which weights are uploaded, the first one that has this kind of model: transformers reads timm's too."""


@dataclass(frozen=True)
class Pushed:
    """A finished upload.

    Attributes:
        source: The name that always opens this commit: `hf://organization/name@revision`.
        url: Page of the repository.
        sha256: Checksum of each file.
        sent: Names of the files that were sent; the hub had the others.
    """

    source: str
    url: str
    sha256: Mapping[str, str]
    sent: Sequence[str]


@dataclass(frozen=True)
class Package:
    """The files that will be uploaded.

    Attributes:
        repo: `organization/name`.
        folder: Where the files are.
        library: The library that opens them, besides vitreous; `vitreous` if there is no other.
        left: Names of the files of the run that are not uploaded.
    """

    repo: str
    folder: Path
    library: str
    left: Sequence[str]

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file, by name."""
        return {file.name: file.stat().st_size for file in sorted(self.folder.iterdir())}

    def states(self) -> dict[str, str]:
        """Ask the hub what it has, and return for each file whether it is new, already there, or replaces another.

        Raises:
            SaveError: The hub cannot be reached.
        """
        there = self._there()
        return {
            name: NEW if name not in there else SAME if _is_same(self.folder / name, there[name]) else OTHER
            for name in self.sizes
        }

    def upload(self, *, private: bool = False) -> Pushed:
        """Send the files that the hub does not have, in one commit, and compare what it has afterwards.

        Raises:
            ConfigError: The repository is public although `private` is True, or describes a model of another kind.
            SaveError: The hub cannot be reached, or refuses the files.
            DamagedFileError: A file on the hub is not the one that was sent.
        """
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi()
        with _one_line(self.repo):
            api.create_repo(self.repo, private=private or None, exist_ok=True)
            info = api.model_info(self.repo)
        if private and not info.private:
            raise ConfigError(
                f"private={private}: {PREFIX}{self.repo} exists and is public; make it private on its page, or leave "
                "this option out"
            )
        names = {sibling.rfilename for sibling in info.siblings or ()}
        stale = [name for name in _DESCRIPTIONS if name in names - self.sizes.keys()]
        if stale:
            raise ConfigError(
                f"{PREFIX}{self.repo}: its {listed(stale)} describes a model of another kind; delete it there, or "
                "choose another name"
            )
        sent = [name for name, state in self.states().items() if state != SAME]
        revision = str(info.sha)
        if sent:
            operations = [CommitOperationAdd(name, self.folder / name) for name in sent]
            with _one_line(self.repo):
                done = api.create_commit(self.repo, operations, commit_message="Upload a model of vitreous")
            revision = str(done.oid)
        self._check(revision)
        sums = {name: sha256(self.folder / name) for name in self.sizes}
        return Pushed(f"{PREFIX}{self.repo}@{revision}", f"{api.endpoint}/{self.repo}", sums, sent)

    def _check(self, revision: str) -> None:
        """Raise DamagedFileError for a file that the hub has in another version than ours."""
        there = self._there(revision)
        for name in self.sizes:
            if name not in there or not _is_same(self.folder / name, there[name]):
                raise DamagedFileError(
                    f"{PREFIX}{self.repo}@{revision}: its {name} is not the file that was sent; push again"
                )

    def _there(self, revision: str | None = None) -> dict[str, Any]:
        """Return what the hub says about these files, by name, those that it has."""
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RepositoryNotFoundError

        with _one_line(self.repo), suppress(RepositoryNotFoundError):
            return {file.path: file for file in HfApi().get_paths_info(self.repo, list(self.sizes), revision=revision)}
        return {}


@contextmanager
def packed(run: Path, to: str, *, with_report: bool = False) -> Iterator[Package]:
    """Write the files for a repository to a temporary folder, for a `with` block; nothing is sent.

    `run` is the folder of a finished run, or a model file, and `to` is `hf://organization/name`.

    Raises:
        NotARunError: There is no model at `run`, or `to` is not the name of a repository.
        ConfigError: There is no token for the hub, or no report.
        MissingDependencyError: huggingface_hub is not installed.
        SaveError: The disk is full.
    """
    repo = repository(to)
    hub = optional_module("huggingface_hub", f"{PREFIX}{repo}", "run pip install 'vitreous[hub]'")
    if hub.get_token() is None:
        raise ConfigError(f"{PREFIX}{repo}: there is no token for the hub; run `hf auth login`, or set HF_TOKEN")
    file = find_model(expanded(run))
    source, predictor = RunFolder(file.parent), Predictor.load(file)
    if with_report and not source.report.is_file():
        raise ConfigError(f"with_report={with_report}: {run} has no report; write it with `vitreous report`")
    with tempfile.TemporaryDirectory(prefix="vitreous-push-") as scratch:
        folder = Path(scratch) / "files"
        with full_disk_explained(scratch):
            library, program = _write_model(predictor, folder, repo)
            use = f"```console\n$ vitreous predict {PREFIX}{repo} photo.jpg\n```\n{program}"
            write_readme(predictor, folder, library, use, has_report=with_report)
            if with_report:
                shutil.copyfile(source.report, folder / source.report.name)
        is_run = source.config.is_file()
        names = sorted(each.name for each in source.path.iterdir()) if is_run else []
        left = [name for name in names if not (folder / name).is_file() and name != source.model_card.name]
        yield Package(repo, folder, library, left)


def _write_model(predictor: Predictor, folder: Path, repo: str) -> tuple[str, str]:
    """Write weights and description; return the library that opens them, and a program for it as Markdown."""
    described = describe(predictor, RunFolder(folder), repo)
    for to in _PREFERRED:
        try:
            write_library(predictor, folder, to)
        except ConfigError:  # the library has no such model
            shutil.rmtree(folder, ignore_errors=True)
            continue
        program = library_snippet(f"hf-hub:{repo}" if to == "timm" else repo, to, described)
        return LIBRARIES[to], f"\nWith {LIBRARIES[to]}:\n\n```python\n{program}```"
    folder.mkdir()
    shutil.copyfile(str(predictor.file), folder / RunFolder(folder).model.name)
    return "vitreous", ""


@contextmanager
def _one_line(repo: str) -> Iterator[None]:
    """Turn whatever huggingface_hub and its HTTP client raise into one line."""
    try:
        yield
    except Exception as error:
        # A failed upload of a large file is reported as a RuntimeError that names only the file.
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        code = getattr(getattr(cause, "response", None), "status_code", None)
        if code in _DENIED:
            raise ConfigError(
                f"{PREFIX}{repo}: the token may not write there ({code}); run `hf auth login` with one that has write "
                "access"
            ) from error
        reason = printable_error(cause)
        raise SaveError(f"{PREFIX}{repo}: cannot be uploaded ({reason}); the same command continues") from error


def _is_same(file: Path, there: Any) -> bool:
    """Compare a file with what the hub says: SHA-256 of large files, and git's hash of small ones."""
    if there.lfs is not None:
        return bool(there.lfs.sha256 == sha256(file))
    content = file.read_bytes()
    return bool(there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())
