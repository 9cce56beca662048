"""Name of a format -> how a trained model is written in it, and how the written file answers."""

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch

from vitreous.errors import ConfigError, MissingDependencyError, VitreousError, without_way_out
from vitreous.use.export.hub.card import write_readme
from vitreous.use.export.hub.library import LIBRARIES, open_library, write_library
from vitreous.use.export.openvino_ir import converted, save_ir
from vitreous.use.export.page.document import document, script_text
from vitreous.use.export.page.pack import pack
from vitreous.use.export.page.runtime import WAY_OUT
from vitreous.use.export.proof import Answer, Outputs, Photos, python_answer
from vitreous.use.export.snippet import library_snippet
from vitreous.use.export.whole import WholeModel
from vitreous.use.predict.predictor import Predictor
from vitreous.wording import printable_error

Description = Mapping[str, object]
"""What a file says about itself, by key; each value is stored as JSON."""
INPUT, OUTPUTS = "photos", ("probabilities", "unfamiliar")
UNFAMILIAR = "unfamiliar."
"""Beginning of the names of weights that are not the model's."""
_EXAMPLE_SIZE = (3, 37, 53)
"""Batch, height and width of the example that is traced; all different, and none of them 1, which would be fixed."""
_MOST_BYTES = 2_000_000_000
"""Size of an ONNX file in one piece, by the limit of its format."""


@dataclass(frozen=True)
class Target:
    """A file format.

    Attributes:
        ending: What the name of the model is followed by in the default name of a file or folder.
        packages: Packages that write and run them.
        write: Writes a model with a description of it, and returns how the file answers.
        tolerance: Largest difference of a probability from Python's. One gray level in many pixels may change it a
            little; weights of 8 bits change it more. Libraries have a preprocessing of their own.
        variant: What its weights are: `float32`, or `int8` if they are rounded to 8 bits. Python has the same weights
            of 8 bits then, and its times are not those of the file.
        extra: What pip installs for it.
    """

    ending: str
    packages: tuple[str, ...]
    write: Callable[[Predictor, Path, Description], Answer]
    tolerance: float = 0.01
    variant: str = "float32"
    extra: str = "vitreous[export]"

    @property
    def suffix(self) -> str:
        """The suffix of its files; empty if it is a folder."""
        return Path(f"model{self.ending}").suffix

    def check_packages(self, to: str) -> None:
        """Raise MissingDependencyError if a package is missing."""
        missing = [package for package in self.packages if importlib.util.find_spec(package) is None]
        if missing:
            raise MissingDependencyError(f"to={to}: needs {', '.join(missing)}; pip install '{self.extra}'")


def write_onnx(predictor: Predictor, path: Path, description: Description) -> Answer:
    """Write an ONNX file. Raises ConfigError if ONNX has no operator for a part of the model, or it is too large."""
    size = sum(weight.numel() * weight.element_size() for weight in predictor.model.parameters())
    if size > _MOST_BYTES:
        raise ConfigError(f"model={size / 1e9:.1f} GB: more than the 2 GB of an ONNX file; use --to torch")
    whole = WholeModel(predictor, predictor.familiarity)
    program = _traced("onnx", partial(
        torch.onnx.export, whole, (_example(predictor),), dynamo=True, dynamic_shapes={INPUT: _any_size()},
        input_names=[INPUT], output_names=list(OUTPUTS[: whole.num_outputs]), verbose=False,
    ))  # fmt: skip
    describe_onnx(program.model_proto, path, description)
    return open_onnx(path)[0]


def describe_onnx(proto: Any, path: Path, description: Description) -> None:
    """Write an ONNX model to a file, with this description instead of any other."""
    del proto.metadata_props[:]
    for key, value in description.items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    path.write_bytes(proto.SerializeToString())


def open_onnx(path: Path) -> tuple[Answer, Mapping[str, str]]:
    """Open an ONNX file with ONNX Runtime on the CPU; return how it answers, and what it says about itself."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Threads that keep waiting for work would slow the others that are compared.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def answer(photos: Photos) -> Outputs:
        return tuple(session.run(None, {INPUT: photos}))

    return answer, session.get_modelmeta().custom_metadata_map


def _write_program(predictor: Predictor, path: Path, description: Description) -> Answer:
    program = _program("torch", predictor)
    extra = {key: json.dumps(value) for key, value in description.items()}
    content = io.BytesIO()  # given a file on a full disk, torch would end the process
    torch.export.save(program, content, extra_files=extra)
    path.write_bytes(content.getbuffer())
    return open_program(path)[0]


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


def _write_package(predictor: Predictor, path: Path, description: Description) -> Answer:
    """Compile a program with AOTInductor, to machine code for processors like this one."""
    check_compiler()
    program, content = _program("aoti", predictor), io.BytesIO()
    stored = {key: json.dumps(value) for key, value in description.items()}
    compile_program: Any = torch._inductor.aoti_compile_and_package
    settings = {"aot_inductor.metadata": stored}
    _traced("aoti", partial(compile_program, program, package_path=content, inductor_configs=settings))
    path.write_bytes(content.getbuffer())
    with silent():
        return open_program(path)[0]


def is_package(path: Path) -> bool:
    """Return True if a `.pt2` file has machine code instead of a program."""
    with ZipFile(path) as archive:
        return any("/data/aotinductor/" in name for name in archive.namelist())


def open_program(path: Path) -> tuple[Answer, Mapping[str, str]]:
    """Open a torch program or package, which may contain code; return how it answers, and what it says about itself."""
    module: Any
    if is_package(path):
        module = torch._inductor.aoti_load_package(str(path))
        about = module.get_metadata()
    else:
        about = {"classes": "", "preprocess": "", "thresholds": ""}
        with path.open("rb") as file:
            module = torch.export.load(file, extra_files=about).module()

    @torch.no_grad()
    def answer(photos: Photos) -> Outputs:
        return tuple(part.numpy() for part in module(torch.from_numpy(photos)))

    return answer, about


def _write_openvino(predictor: Predictor, path: Path, description: Description) -> Answer:
    """Write a folder with OpenVINO's files, which computes in float32 on any processor."""
    program, shape = _program("openvino", predictor), (-1, -1, -1, predictor.preprocess.in_chans)
    model = _traced("openvino", partial(converted, program, shape, OUTPUTS[0]))
    return save_ir(model, path, {**description, "unfamiliar": None}, "f32")


def _program(to: str, predictor: Predictor) -> torch.export.ExportedProgram:
    known = None if to == "openvino" else predictor.familiarity  # smaller precisions would round its distances, too
    whole, shapes = WholeModel(predictor, known), {INPUT: _any_size()}
    return _traced(to, partial(torch.export.export, whole, (_example(predictor),), dynamic_shapes=shapes))


def _write_page(predictor: Predictor, path: Path, description: Description) -> Answer:
    """Write a page in which the model runs; its answers are those of Python with weights of 8 bits, as in the page."""
    WholeModel(predictor)  # refuses what no format can have
    try:
        packed = pack(predictor)
    except ConfigError as error:
        way_out = "use --to onnx" if predictor.preprocess.in_chans not in (1, 3) else WAY_OUT
        raise ConfigError(f"{without_way_out(error)}; {way_out}") from error
    path.write_text(document(predictor, str(description["name"]), packed.text, script_text()), encoding="utf-8")
    return python_answer(replace(predictor, model=packed.rounded))


def _write_library(to: str, predictor: Predictor, path: Path, description: Description) -> Answer:
    write_library(predictor, path, to)
    name = str(description["name"])
    program = library_snippet(f"local-dir:{name}" if to == "timm" else name, to, description)
    write_readme(predictor, path, LIBRARIES[to], f"```python\n{program}```")
    with silent():
        return open_library(predictor, path, to)


def _traced(to: str, export: Callable[[], Any]) -> Any:
    """Trace a model without gradients. Raises ConfigError for the many types of errors by which torch refuses one."""
    try:
        with torch.no_grad(), silent():
            return export()
    except VitreousError:
        raise
    except Exception as error:
        raise ConfigError(
            f"to={to}: this model cannot be written ({printable_error(error)}); use `vitreous predict` for it"
        ) from error


@contextmanager
def silent() -> Iterator[None]:
    """Hide what exporters and quantizers log and warn of while they work."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _any_size() -> dict[int, Any]:
    return {axis: torch.export.Dim(name, min=1) for axis, name in enumerate(("batch", "height", "width"))}


def _example(predictor: Predictor) -> torch.Tensor:
    shape = (*_EXAMPLE_SIZE, predictor.preprocess.in_chans)
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


TARGETS: Mapping[str, Target] = {
    "aoti": Target("-aoti.pt2", (), _write_package),
    "hf": Target("-hf", ("transformers",), partial(_write_library, "hf"), tolerance=1.0, extra="transformers"),
    "html": Target(".html", (), _write_page, tolerance=0.25, variant="int8"),
    "onnx": Target(".onnx", ("onnx", "onnxscript", "onnxruntime"), write_onnx),
    "openvino": Target("-openvino", ("openvino", "nncf"), _write_openvino, extra="vitreous[openvino]"),
    "timm": Target("-timm", ("timm",), partial(_write_library, "timm"), tolerance=1.0, extra="timm"),
    "torch": Target(".pt2", (), _write_program),
}
