"""`vitreous export` -> a file that gives the answers of a run without vitreous, and how it compares with Python."""

from dataclasses import dataclass
from pathlib import Path

from cyclopts import Parameter

from vitreous.cli.options import AsJson, Switch
from vitreous.cli.screen import Screen, print_json, print_table
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.export.exporter import MAX_DROP
from vitreous.use.export.exporter import export as export_run
from vitreous.use.export.snippet import check_language
from vitreous.use.export.words import proof_rows, proof_sentence
from vitreous.use.predict.predictor import find_model
from vitreous.use.report.page import write_report


@Parameter(name="*")
@dataclass(frozen=True)
class ExportOptions:
    """Other options of `vitreous export`.

    Attributes:
        runtime: For html: folder of the npm package onnxruntime-web, which runs models of any size in the page.
        snippet: Language of the program that is printed: python, or for onnx also javascript, csharp or cpp.
        as_json: Print one JSON document instead of text.
    """

    runtime: Path | None = None
    snippet: str = "python"
    as_json: AsJson = False


def export(
    run: Path,
    /,
    *,
    to: str,
    out: Path | None = None,
    data: str | None = None,
    int8: Switch = False,
    max_drop: float | None = None,
    options: ExportOptions = ExportOptions(),
) -> None:
    """Write a file or folder that gives the answers of a model without vitreous, and keep it only if it does.

    Args:
        run: Run folder; with --data also a model.safetensors file or hf://organization/name.
        to: onnx, openvino (a folder), torch (a program for torch.export.load), aoti (the same, compiled for this
            processor), html (a page in which the model runs, without a network), hf (a folder for transformers) or
            timm (a folder for timm).
        out: File or folder to write; default: named after the run, in the current folder.
        data: Labeled photos to compare on: a folder, table or named data set; default: the held-out photos of the run.
        int8: Also try 8-bit weights, and keep the fastest file that is accurate enough (see --max-drop). For onnx and
            openvino; openvino also tries bfloat16 if the processor supports it.
        max_drop: Points of accuracy that a smaller precision may cost, for the upper end of the 95% interval; default:
            1.
        options: All other options.
    """
    runtime, snippet, as_json = options.runtime, options.snippet, options.as_json
    check_language(snippet, to)
    with Screen(stderr=as_json) as screen:
        found = export_run(
            run, to, out, data=data, int8=int8, max_drop=max_drop, runtime=runtime, listener=screen.listen
        )
        folder = RunFolder(find_model(run).parent)
        if found.is_own and folder.report.is_file():
            write_report(folder)
    measured = found.as_dict()
    if as_json:
        print_json(measured)
        return
    print_table(screen.console, list(proof_rows(measured)), numbers_from=1)
    if len(found.tried) > 2 and found.variant == "float32":
        limit = MAX_DROP if max_drop is None else max_drop
        kind = "weights of 8 bits are not smaller" if options.runtime else "smaller precisions are not faster"
        reason = f"{kind}, or may cost more than {limit:g} points of accuracy"
        screen.say_notes([f"{reason}, so the file has float32; --max-drop allows more"])
    screen.say(f"{found.path}: {proof_sentence(measured)}", style="bold green")
    program = found.snippets.get(snippet, found.snippet)
    size = f"{found.path.stat().st_size / 1e6:.1f} MB"
    screen.say(f"\n{program}" if program else f"open it in a browser, on a computer or a phone; it has {size}")
