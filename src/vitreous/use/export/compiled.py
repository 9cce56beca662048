"""A program of PyTorch -> an AOTInductor package: machine code for processors like this one, and how it answers."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch

from vitreous.errors import MissingDependencyError
from vitreous.use.export.proof import Answer, Outputs, Photos


def check_compiler() -> None:
    """Raise MissingDependencyError if there is no C++ compiler that PyTorch can use."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise MissingDependencyError(
            "to=aoti: needs a C++ compiler; install g++ or clang++, or name one in the environment variable CXX"
        ) from error


def compiler_of(program: torch.export.ExportedProgram, path: Path, about: Mapping[str, object]) -> Callable[[], None]:
    """Return what compiles a program and writes it to a file; `about` is stored with it, each value as JSON."""

    def write() -> None:
        stored = {key: json.dumps(value) for key, value in about.items()}
        content: Any = io.BytesIO()  # given a file on a full disk, torch would end the process
        settings = {"aot_inductor.metadata": stored}
        torch._inductor.aoti_compile_and_package(program, package_path=content, inductor_configs=settings)
        path.write_bytes(content.getbuffer())

    return write


def is_package(path: Path) -> bool:
    """Return True if a `.pt2` file has machine code instead of a program."""
    with ZipFile(path) as archive:
        return any("/data/aotinductor/" in name for name in archive.namelist())


def open_package(path: Path) -> tuple[Answer, Mapping[str, str]]:
    """Open a package, which runs its machine code; return how it answers, and what it says about itself."""
    package: Any = torch._inductor.aoti_load_package(str(path))

    @torch.no_grad()
    def answer(photos: Photos) -> Outputs:
        return tuple(part.numpy() for part in package(torch.from_numpy(photos)))

    return answer, package.get_metadata()
