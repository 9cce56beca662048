import doctest
import importlib
import pkgutil

import pytest

from vitreous import model

MODULES = [importlib.import_module(info.name) for info in pkgutil.walk_packages(model.__path__, "vitreous.model.")]
DOCSTRINGS = [docstring for module in MODULES for docstring in doctest.DocTestFinder().find(module)]
EXAMPLES = {
    docstring.name.removeprefix("vitreous.model."): docstring
    for docstring in DOCSTRINGS
    if docstring.examples and not any(doctest.SKIP in example.options for example in docstring.examples)
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring_example_runs(name):
    results = doctest.DocTestRunner().run(EXAMPLES[name])
    assert (results.attempted, results.failed) == (len(EXAMPLES[name].examples), 0)


def test_user_facing_names_have_an_example():
    assert set(EXAMPLES) >= {
        "build.create_model",
        "change.merge.merge_tokens",
        "change.reshape.make_flexible",
        "taps.taps",
        "vit.VisionTransformer",
    }
