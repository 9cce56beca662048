"""Program of torch -> OpenVINO's files, also in smaller precisions, and how they answer in the precision they state.

OpenVINO computes in bfloat16 where the processor has it, unless it is asked for another precision. So a file says in
which precision it was compared with Python, and the program that opens it has to ask for that.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vitreous.use.export.proof import Answer, Outputs, Photos

_MODEL = "openvino_model.xml"
"""The file that is opened; the weights are next to it. Other tools expect this name, too."""
_SPACE, _PRECISION = "vitreous", "precision"
_SMOOTHING = 0.5
"""How far the ranges of activations are evened out at the expense of weights, which have 7 bits here: 0.5 as in
SmoothQuant (Xiao et al. 2023, 2211.10438), while NNCF's 0.95 leaves more to the weights."""


def converted(program: Any, shape: Sequence[int], output: str) -> Any:
    """Convert a program of torch with one input, of this shape, and one output, which gets this name."""
    model = _openvino().convert_model(program)
    model.reshape(list(shape))  # the number of channels has been lost
    model.output(0).get_tensor().set_names({output})
    return model


def save_ir(model: Any, folder: Path, description: Mapping[str, object], precision: str) -> Answer:
    """Write a model with its description into a new folder, to be computed in `f32` or `bf16`, and open it."""
    for key, value in {**description, _PRECISION: precision}.items():
        model.set_rt_info(json.dumps(value), [_SPACE, key])
    folder.mkdir()
    _openvino().save_model(model, folder / _MODEL, compress_to_fp16=False)
    return open_ir(folder)[0]


def open_ir(path: Path) -> tuple[Answer, Mapping[str, str]]:
    """Open such a folder, or the `.xml` file in it; return how it answers, and what it says about itself."""
    core = _openvino().Core()
    model = core.read_model(path / _MODEL if path.is_dir() else path)
    about: Mapping[str, str] = model.get_rt_info([_SPACE]).value
    hint = {"INFERENCE_PRECISION_HINT": json.loads(about[_PRECISION])}
    compiled = core.compile_model(model, "CPU", hint)

    def answer(photos: Photos) -> Outputs:
        return (np.asarray(compiled(photos)[0], dtype=np.float32),)

    return answer, about


def smaller_ir(
    written: Path, photos: Iterator[Photos] | None, description: Mapping[str, object]
) -> Mapping[str, Answer]:
    """Write a model in smaller precisions into folders next to its own, and return how they answer, by name.

    `bfloat16` is written if the processor supports it. With training photos, from which the ranges of activations are
    taken, `int8` is written too, and `int8-bfloat16`, which computes everything else in bfloat16.
    """
    core = _openvino().Core()
    precisions = {"": "f32", "bfloat16": "bf16"}
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        del precisions["bfloat16"]
    plain = core.read_model(written / _MODEL)
    models = {name: (plain, hint) for name, hint in precisions.items() if name}
    if photos is not None:
        small = _quantized(plain, photos)
        models |= {f"int8-{name}".rstrip("-"): (small, hint) for name, hint in precisions.items()}
    return {name: save_ir(model, written.with_name(name), description, hint) for name, (model, hint) in models.items()}


def _quantized(model: Any, photos: Iterator[Photos]) -> Any:
    """Return a copy with blocks in 8 bits, of which weights use 7; `quantize.py` has the reasons."""
    import nncf
    import rich

    console = rich.get_console()
    was_quiet, console.quiet = console.quiet, True  # NNCF draws progress bars there
    products = [node for node in model.get_ordered_ops() if node.get_type_name() in ("MatMul", "Convolution")]
    weighted = [
        node.get_friendly_name() for node in products if node.input_value(1).get_node().get_type_name() == "Constant"
    ][1:-1]
    try:
        return nncf.quantize(
            model, nncf.Dataset(list(photos)), model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(
                names=[name for node in model.get_ops() if (name := node.get_friendly_name()) not in weighted],
                validate=False,
            ),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE,
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=_SMOOTHING),
            ),
        )  # fmt: skip
    finally:
        console.quiet = was_quiet


def _openvino() -> Any:
    """Import OpenVINO without the package with which it would report each import over the network."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
