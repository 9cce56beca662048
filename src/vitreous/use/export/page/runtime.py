"""ONNX file, folder of `onnxruntime-web` -> a page in which ONNX Runtime runs the model."""

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from vitreous.errors import ConfigError
from vitreous.paths import expanded
from vitreous.use.export.page.document import document, script_text
from vitreous.use.export.page.pack import as_base64, page_data
from vitreous.use.predict.predictor import Predictor

_MOST_BYTES = 500_000_000
"""Size of a page, by the longest text of Chromium's JavaScript, 512 MiB."""
VERSION, _PLACE = "1.30.0", "node_modules/onnxruntime-web"
_INSTALL = f"run `npm install onnxruntime-web@{VERSION}`"
WAY_OUT = f"{_INSTALL} and add `--runtime {_PLACE}`, or use --to onnx"
"""What to do with a model that `engine.js` cannot run."""
FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""Files of that version with their SHA-256: other ones were not tested, and may do more than to run a model."""


@dataclass(frozen=True)
class WebRuntime:
    """ONNX Runtime for browsers.

    Attributes:
        script: JavaScript that defines `ort`.
        wasm: WebAssembly that it runs.
    """

    script: str
    wasm: bytes


def read_runtime(folder: Path) -> WebRuntime:
    """Read the files of the package `onnxruntime-web` in its own folder, or that in which `npm install` was run.

    Raises:
        ConfigError: They are missing, or not those of the version that this page was tested with.
    """
    inside = expanded(folder) / _PLACE
    place = (inside if inside.is_dir() else expanded(folder)) / "dist"
    contents = []
    for name, expected in FILES.items():
        try:
            content = (place / name).read_bytes()
        except OSError as error:
            raise ConfigError(f"runtime={folder}: has no {name}; {_INSTALL} and give {_PLACE}") from error
        if hashlib.sha256(content).hexdigest() != expected:
            raise ConfigError(f"runtime={folder}: {name} is not that of version {VERSION}; {_INSTALL}")
        contents.append(content)
    module, wasm = contents
    return WebRuntime(_as_script(module.decode()), wasm)


def _as_script(module: str) -> str:
    """Return the module as a script that defines `ort`, because a policy cannot allow modules of a local file.

    It asks where it was loaded from, to find files that the page contains; any address will do.
    """
    body, _, exported = module.replace("import.meta.url", '"page:///"').partition("export{")
    names = re.sub(r"([\w$]+) as (\w+)", r"\2:\1", exported.partition("}")[0])
    return f"const ort=(()=>{{{body}return{{{names}}}}})();\n"


def runtime_page(predictor: Predictor, name: str, onnx: bytes, runtime: WebRuntime) -> bytes:
    """Return a page with an ONNX file of a model. Raises ConfigError if it is too large for a browser."""
    packed = {key: as_base64(gzip.compress(content)) for key, content in (("onnx", onnx), ("wasm", runtime.wasm))}
    hidden = [round(255 * mean) for mean in predictor.preprocess.mean or ()]
    script = runtime.script + script_text("runtime.js")
    page = document(predictor, name, page_data(predictor, {**packed, "hidden": hidden}), script, wasm=True).encode()
    if len(page) > _MOST_BYTES:
        raise ConfigError(
            f"to=html: the page has {len(page) / 1e6:,.0f} MB, and browsers read at most {_MOST_BYTES / 1e6:g} MB; "
            "allow weights of 8 bits with --max-drop, or use --to onnx"
        )
    return page
