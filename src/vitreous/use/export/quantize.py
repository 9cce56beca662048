"""ONNX file, training photos -> ONNX files whose matrix products are in 8 bits, to be judged by their accuracy.

Softmax, norms and activation functions stay in float32, and so do resizing and the small products at both ends, that of
the patches and the head: a head that was fitted to whitened features multiplies directions of little variance, and with
them what was rounded. Only 7 bits of a weight are used, because processors without VNNI instructions add pairs of
products in 16 bits, which 8 bits can exceed.

Products in 8 bits depend on the processor: what rounds up on one may round down on another. A page, which runs on any
processor, gets weights of 8 bits that are multiplied in float32.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from vitreous.use.export.page.int8 import to_int8
from vitreous.use.export.proof import Answer, Photos
from vitreous.use.export.targets import INPUT, UNFAMILIAR, Description, describe_onnx, open_onnx, silent

_PRODUCTS = ("MatMul", "Gemm", "Conv")


def rounded(written: Path, description: Description) -> Mapping[str, Answer]:
    """Write `int8-weights.onnx` next to a file, with matrices that are rounded by `to_int8`.

    Returns:
        How that file answers, by its name.
    """
    import onnx

    proto, path = onnx.load(written), written.with_name("int8-weights.onnx")
    graph, axes = proto.graph, {node.input[1]: _axis(node) for node in _products(proto.graph)}
    for tensor in [tensor for tensor in graph.initializer if tensor.name in axes]:
        rows = torch.tensor(onnx.numpy_helper.to_array(tensor)).movedim(axes[tensor.name], 0)
        values, scales = to_int8(rows)
        names = [f"{tensor.name}.{part}" for part in ("int8", "scales", "float")]
        graph.initializer.remove(tensor)
        for name, part in zip(names, (values.view(rows.shape), scales.view(-1, *[1] * (rows.ndim - 1))), strict=False):
            whole = part.movedim(0, axes[tensor.name]).numpy()
            graph.initializer.append(onnx.numpy_helper.from_array(whole, name))
        # Not DequantizeLinear: ONNX Runtime would round the activations, too.
        graph.node.insert(0, onnx.helper.make_node("Mul", [names[2], names[1]], [tensor.name]))
        graph.node.insert(0, onnx.helper.make_node("Cast", names[:1], names[2:], to=onnx.TensorProto.FLOAT))
    describe_onnx(proto, path, description)
    return {path.stem: open_onnx(path)[0]}


def _products(graph: Any) -> list[Any]:
    """Return the products with weights of the model."""
    weights = {tensor.name for tensor in graph.initializer if not tensor.name.startswith(UNFAMILIAR)}
    return [node for node in graph.node if node.op_type in _PRODUCTS and node.input[1] in weights]


def _axis(product: Any) -> int:
    """Return the axis of the weights of a product that its result keeps."""
    is_turned = any(attribute.name == "transB" and attribute.i for attribute in product.attribute)
    return 0 if product.op_type == "Conv" or is_turned else 1


def quantized(written: Path, photos: Iterator[Photos], description: Description) -> Mapping[str, Answer]:
    """Write `int8-dynamic.onnx` and `int8-static.onnx` next to a file in float32, and return how they answer, by name.

    `int8-static` takes the range of each activation from the training photos; `int8-dynamic` measures it for each
    photo.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    folded = written.with_suffix(".folded.onnx")
    feeds = ({INPUT: batch} for batch in photos)
    files = {name: written.with_name(f"{name}.onnx") for name in ("int8-dynamic", "int8-static")}
    with silent():
        quant_pre_process(written, folded, skip_symbolic_shape=True)  # transposed weights become weights
        products = _products(onnx.load(folded).graph)[1:-1]  # without patches and head
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
        return {name: open_onnx(path)[0] for name, path in files.items()}
