"""Run folder -> Run: the trained model, its scores, and everything that can be done with it."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitreous.paths import as_path

if TYPE_CHECKING:
    from torch import Tensor

    from vitreous.data.decoding.decode import ImageLike
    from vitreous.data.sources import Dataset, Source
    from vitreous.model.vit import VisionTransformer
    from vitreous.use.embed.embeddings import Embeddings
    from vitreous.use.evaluate.evaluation import Evaluation
    from vitreous.use.evaluate.metrics.costs import Costs
    from vitreous.use.evaluate.multilabel import LabelEvaluation
    from vitreous.use.evaluate.robustness.robustness import Robustness
    from vitreous.use.explain.anatomy.anatomy import ModelAnatomy
    from vitreous.use.explain.check.faithfulness import Faithfulness
    from vitreous.use.explain.pictures.explanation import Explanation
    from vitreous.use.export.exporter import Export
    from vitreous.use.export.hub.push import Pushed
    from vitreous.use.predict.predictor import Prediction, Predictor


class Run:
    """A finished training run.

    Modules are imported when they are needed, so that `import vitreous` is quick. `path` is a run folder, a
    `model.safetensors` file, or `hf://organization/name`.

    Raises:
        NotARunError: There is no trained model at that path.

    Example:
        >>> import vitreous as vt
        >>> run = vt.train("digits", epochs=1)  # doctest: +SKIP
        >>> run.accuracy, run.predict("seven.png")[0].label  # doctest: +SKIP
        (0.61, '7')
    """

    def __init__(self, path: str | Path) -> None:
        from vitreous.use.predict.predictor import find_model

        self.path = as_path("run", path)
        self._model_file = find_model(self.path, or_best=True)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """Show the accuracy and the report in a notebook."""
        from vitreous.training.folder.run_folder import RunFolder
        from vitreous.use.html.jupyter import run_html

        return run_html(self.path, self.classes, self.metrics, RunFolder(self._model_file.parent))

    @cached_property
    def model(self) -> "VisionTransformer":
        """The trained model, in evaluation mode on the CPU, loaded on first use; `predict` uses the same model."""
        from vitreous.model.weights import load_model

        return load_model(self._model_file)

    @cached_property
    def predictor(self) -> "Predictor":
        """Model, preprocessing and classes in one object, loaded on first use."""
        from vitreous.use.predict.predictor import Predictor

        return Predictor.from_model(self.model, self.metadata, self._model_file)

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """Metadata of the model file: classes, preprocessing, architecture, metrics, recipe and more."""
        from vitreous.model.weights import read_metadata

        return read_metadata(self._model_file)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits; empty if the model file has none."""
        return tuple(self.metadata.get("classes", ()))

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Scores by split, `val` and `test`; a split without images is left out."""
        return self.metadata.get("metrics", {})

    @property
    def accuracy(self) -> float:
        """Accuracy on the test images, or on the validation images if there are no test images; NaN without either."""
        from vitreous.use.evaluate.evaluation import scored_split

        split = scored_split(self.metrics)
        return float("nan") if split is None else float(self.metrics[split]["accuracy"])

    def predict(
        self, images: "ImageLike | Tensor | Iterable[Any]", *, tta: int = 1, coverage: float | None = None,
        sets: str | None = None, reject: float | None = None,
    ) -> "list[Prediction]":  # fmt: skip
        """Classify one image or many.

        A file that cannot be decoded gets a prediction with an `error`.

        Args:
            images: A path, a folder, encoded bytes, a PIL image, an array or tensor with the channels first or last
                (uint8, or floats in 0..1), a batch of them, a batch of a `DataLoader`, or any iterable of these.
            tta: Number of views of each image to average over; ConfigError if there are not that many.
            coverage: Probability, in (0, 1), that the `set` of a prediction contains the true class; None for no sets.
            sets: `lac`, `aps`, `raps`, or one of them with `-per-class`; None for `lac`.
            reject: Accuracy, in (0, 1), that predictions have that are not `rejected`; None to reject nothing.

        Raises:
            DataNotFoundError: A path does not exist, or a folder contains no images.
            DataError: Something that is not an image, or an array whose shape or values have no clear meaning.
            ConfigError: The held-out images of the run cannot guarantee `coverage` or `reject`.
            NotARunError: The run has no outputs of held-out images, which these two need.
        """
        from vitreous.use.evaluate.sets.decide import decisions
        from vitreous.use.predict.inputs import images_of

        predictor = self.predictor.with_views(tta)
        decide = decisions(self.path, predictor, coverage, sets, reject)
        return list(map(decide, predictor.stream(images_of(images, predictor.preprocess.in_chans))))

    def embed(self, images: "ImageLike | Tensor | Iterable[Any]") -> "Embeddings":
        """Compute the features of one image or many, the input of the head, to find similar images.

        `images` are all that `predict` takes. A file that cannot be decoded gets no row, which a warning says.

        Raises:
            DataNotFoundError: A path does not exist, or a folder contains no images.
            DataError: Something that is not an image, or an array whose shape or values have no clear meaning.
        """
        from vitreous.use.embed.embedder import Embedder

        return Embedder(self.predictor.model, self.predictor.preprocess).embed_given(images)

    def explain(
        self,
        images: "ImageLike | Tensor | Iterable[Any]",
        method: str | Sequence[str] | None = None,
        target: str | int | None = None,
        versus: str | int | None = None,
    ) -> "list[Explanation]":
        """Explain predictions: which parts of an image raise the score of a class.

        In a notebook, an explanation shows itself. `Explainer.explain` does the same with bounded memory.

        Args:
            images: All that `predict` takes. A file that cannot be decoded gets an explanation that is `unreadable`.
            method: Name of a method, several names, or `all`. None: the default, `attention-attribution`.
            target: Name or number of the class to explain. None: the predicted class of each image.
            versus: Name or number of a class to compare it with.

        Returns:
            An explanation for each image and method, image by image.

        Raises:
            UnknownNameError: There is no such method or class.
            DataNotFoundError: A path does not exist, or a folder contains no images.
            DataError: Something that is not an image, or an array whose shape or values have no clear meaning.

        Example:
            >>> import vitreous as vt
            >>> run = vt.load_run("runs/photos-1")  # doctest: +SKIP
            >>> run.explain("cat.jpg", versus="dog")[0].save("why.png")  # doctest: +SKIP
        """
        from vitreous.use.explain.explainer import Explainer
        from vitreous.use.explain.methods import DEFAULT

        return list(Explainer(self.predictor).explain(images, DEFAULT if method is None else method, target, versus))

    def evaluate(
        self, data: "str | Path | Dataset | None" = None, *, tta: int = 1, cost: "Costs" = ()
    ) -> "Evaluation | LabelEvaluation":
        """Score the model on its held-out images, or on other data.

        Args:
            data: A folder, table, named set or data set from Python. None selects the run's test images (validation
                images if it has no test images), and so does the data set that the run was given from Python.
            tta: Number of views; with more than 1, `views` of the result says what averaging over them gains.
            cost: `{("defect", "good"): 20}` if a defect that is predicted as good costs 20, every other mistake 1;
                with several labels per image `{("defect", "miss"): 20, ("defect", "false-alarm"): 2}`. Then the
                `decision` of the evaluation is the one with the least expected cost.

        Raises:
            NotARunError: `data` is None and the model file is not in a run folder.
            DataError: The data has changed since the run, or has classes that the model does not know.
            ConfigError: A cost is not valid.
        """
        from vitreous.use.evaluate.evaluator import evaluate

        return evaluate(self.path, _opened(data), num_views=tta, cost=cost)

    def robustness(self, data: "str | Path | Dataset | None" = None) -> "Robustness":
        """Measure how much accuracy noise, blur, weather, light, position and resizing cost; data as in `evaluate`."""
        from vitreous.use.evaluate.robustness.robustness import measure_robustness

        return measure_robustness(self.path, _opened(data))

    def check_explanations(
        self, data: "str | Path | Dataset | None" = None, *, methods: Sequence[str] | None = None,
        num_images: int | None = None, seed: int = 0,
    ) -> "Faithfulness":  # fmt: skip
        """Compare how faithful explanation methods are for this model, on held-out images; `save` writes the result.

        Args:
            data: As in `evaluate`.
            methods: Names of methods; None for all that are quick enough.
            num_images: Number of images; None for 20 to 200, fewer for larger models.
            seed: Chooses the images, and decides random orders and intervals.

        Raises:
            UnknownNameError: There is no such method.
            NotARunError: `data` is None and the model file is not in a run folder.
            DataError: There are fewer than 10 images, or as in `evaluate`.
        """
        from vitreous.use.explain.check.checker import check_explanations

        return check_explanations(self.path, _opened(data), methods=methods, num_images=num_images, seed=seed)

    def explain_model(self, data: "str | Path | Dataset | None" = None) -> "ModelAnatomy":
        """Look into the model: its filters, attention, tokens, features, and the accuracy without each of its parts.

        Args:
            data: Labeled images to look at, as in `evaluate`; None selects the held-out images of the run. At most 500
                are drawn.

        Returns:
            Findings, numbers and matplotlib figures by part; `save` writes them as a page.

        Raises:
            DataError: `data` has classes that the model does not know, or no readable image.
        """
        from vitreous.use.explain.anatomy.anatomy import explain_model

        return explain_model(self.path, _opened(data))

    def export(
        self,
        to: str = "onnx",
        path: str | Path | None = None,
        *,
        data: "str | Path | Dataset | None" = None,
        int8: bool = False,
        max_drop: float | None = None,
        runtime: str | Path | None = None,
    ) -> "Export":
        """Write a file that gives the answers of `predict` without this package, and compare it with Python.

        Args:
            to: `onnx`, `torch` (a program), `html` (a page), or a folder for `openvino`, `hf` (transformers) or `timm`.
            path: The file or folder; None for one that is named after the run, in the working directory.
            data: Labeled photos to compare on, as in `evaluate`; None selects the held-out photos of the run.
            int8: Also try 8-bit weights, and keep the fastest file that is accurate enough.
            max_drop: The largest drop in points, for the upper end of its 95% interval; None for 1.
            runtime: Folder of the npm package `onnxruntime-web`, for a page with a model of any size.

        Raises:
            UnknownNameError: There is no such format.
            MissingDependencyError: A package that the format needs is missing.
            ConfigError: The file exists, cannot have the model, or would give other answers; then no file is left.
            DataError: There are no photos to compare on, or as in `evaluate`.
        """
        from vitreous.use.export.exporter import export

        out = None if path is None else as_path("path", path)
        return export(self.path, to, out, data=_opened(data), int8=int8, max_drop=max_drop, runtime=runtime)

    def push(self, to: str, *, private: bool = False, with_report: bool = False) -> "Pushed":
        """Upload the model to the Hugging Face hub: weights, description and model card, no photos.

        Args:
            to: `hf://organization/name`; the repository is created if there is none.
            private: Make a new repository private.
            with_report: Also upload `report.html`, which shows photos of the data.

        Raises:
            NotARunError: `to` is not the name of a repository.
            ConfigError: There is no token or report, or the repository is public although `private` is True.
            SaveError: The hub cannot be reached, or refuses the files.
            DamagedFileError: A file on the hub is not the one that was sent.
            MissingDependencyError: huggingface_hub is not installed.
        """
        from vitreous.use.export.hub.push import packed

        with packed(self.path, to, with_report=with_report) as package:
            return package.upload(private=private)


def _opened(data: "str | Path | Dataset | None") -> "str | Source | None":
    from vitreous.data.sources import open_object

    return open_object(data) if not isinstance(data, str | Path | None) else None if data is None else str(data)
