"""ONNX file, training photos -> ONNX files whose matrix products are in 8 bits, to be judged by their accuracy.

Softmax, norms and activation functions stay in float32, and so does resizing. Only 7 bits of a weight are used, because
processors without VNNI instructions add pairs of products in 16 bits, which 8 bits can exceed.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vitreous.use.export.proof import Answer, Photos
from vitreous.use.export.targets import INPUT, Description, describe_onnx, open_onnx, silent

_PRODUCTS = ("MatMul", "Gemm", "Conv")


def quantized(written: Path, photos: Iterator[Photos], description: Description) -> Mapping[str, Answer]:
    """Write `int8-dynamic.onnx` and `int8-static.onnx` next to a file, and return how they answer, by name.

    Args:
        written: The ONNX file in float32.
        photos: Training photos, from which `int8-static` takes the range of each activation. `int8-dynamic` measures
            them for each photo.
        description: What the new files say about themselves.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    folded = written.with_suffix(".folded.onnx")
    feeds = ({INPUT: batch} for batch in photos)
    files = {name: written.with_name(f"{name}.onnx") for name in ("int8-dynamic", "int8-static")}
    with silent():
        quant_pre_process(written, folded, skip_symbolic_shape=True)  # transposed weights become weights
        graph = onnx.load(folded).graph
        weights = {tensor.name for tensor in graph.initializer}
        products = [node for node in graph.node if node.op_type in _PRODUCTS and node.input[1] in weights]
        options: dict[str, Any] = {"per_channel": True, "reduce_range": True, "weight_type": QuantType.QInt8}
        quantize_dynamic(
            folded, files["int8-dynamic"],
            # ONNX Runtime has no convolution of this kind.
            nodes_to_quantize=[node.name for node in products if node.op_type != "Conv"], **options,
        )  # fmt: skip
        quantize_static(
            folded, files["int8-static"], SimpleNamespace(get_next=lambda: next(feeds, None)),
            quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, calibrate_method=CalibrationMethod.MinMax,
            nodes_to_quantize=[node.name for node in products], op_types_to_quantize=list(_PRODUCTS), **options,
        )  # fmt: skip
        for path in files.values():
            describe_onnx(onnx.load(path), path, description)
        return {name: open_onnx(path) for name, path in files.items()}
