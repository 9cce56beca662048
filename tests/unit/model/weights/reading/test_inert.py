"""The pickle interpreter builds plain values like Python's, runs nothing, and needs no more memory than its input."""

import argparse
import collections
import contextlib
import copyreg
import io
import math
import os
import pickle
import pickletools
import time
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.model.weights.samples import (
    HEADS,
    PLAIN,
    assert_same,
    load_model,
    noisy,
    plain_state,
    refusal,
    write_as,
)

from vitreous.model.weights.reading.files import open_weights
from vitreous.model.weights.reading.inert import Name, Stub, read_pickle
from vitreous.model.weights.reading.torch_file import walk

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")

PROTOCOLS = range(6)
CODES = [instruction.code.encode("latin1") for instruction in pickletools.opcodes]


def read(data):
    return read_pickle(io.BytesIO(data))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(value=plain, protocol=st.sampled_from([2, 3, 4, 5]))
def test_plain_values_are_read_as_python_reads_them(value, protocol):
    data = pickle.dumps(value, protocol)
    expected = pickle.loads(data)
    if protocol == 2:  # Python 3 pickles bytes of protocol 2 as a call of _codecs.encode
        return
    assert read(data) == expected


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_is_read(protocol):
    value = {"a": [1, 2.5, "ü", None, True, 2**80], "b": (1,), "c": collections.OrderedDict(x=3), 4: ()}
    assert read(pickle.dumps(value, protocol)) == value


class Slots:
    __slots__ = ("a",)

    def __init__(self):
        self.a = [1]


class Reduced(dict):
    def __reduce__(self):
        return Reduced, (), {"state": 1}, iter([5]), iter([("k", 6)])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("value", "name", "inside"),
    [
        (argparse.Namespace(lr=3, x=[4]), "argparse.Namespace", {"lr": 3, "x": [4]}),
        (Reduced(), f"{__name__}.Reduced", {"state": 1, 0: 5, "k": 6}),
    ],
)
def test_objects_become_stubs_with_their_contents(protocol, value, name, inside):
    stub = read(pickle.dumps(value, protocol))
    assert isinstance(stub, Stub)
    assert (stub.name, stub.contents) == (name, inside)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_slots_functions_sets_and_numpy_values_do_not_fail(protocol):
    value = [
        Slots(),
        math.sqrt,
        {1, (2, 3)},
        frozenset([4]),
        np.float32(2),
        np.arange(3),
        np.dtype("f4"),
        complex(1, 2),
    ]
    found = read(pickle.dumps(value, protocol))
    assert found[0].contents == {"state": None, "a": [1]}
    assert found[1] == Name("math.sqrt")
    assert len(found) == 8


# Hostile pickles. Each would run code, or take forever, with Python's own unpickler.


def instructions(*parts):
    return b"\x80\x04" + b"".join(parts) + b"."


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def named(module, attribute):
    return text(module) + text(attribute) + b"\x93"


SYSTEM = named("os", "system")
REBUILD, PARAMETER = named("torch._utils", "_rebuild_tensor_v2"), named("torch._utils", "_rebuild_parameter")
TOUCH = text("touch MARKER")
ATTACKS = {
    "reduce": instructions(SYSTEM, TOUCH, b"\x85R"),
    "inst": b"(S'touch MARKER'\nios\nsystem\n.",
    "obj": instructions(b"(", SYSTEM, TOUCH, b"o"),
    "newobj": instructions(SYSTEM, TOUCH, b"\x85\x81"),
    "newobj_ex": instructions(SYSTEM, TOUCH, b"\x85}\x92"),
    "result is called": instructions(named("builtins", "getattr"), SYSTEM, text("x"), b"\x86R", TOUCH, b"\x85R"),
    "setstate": instructions(named("a", "B"), b")\x81}", text("__setstate__"), SYSTEM, b"sb", TOUCH, b"b"),
    "state of a class": instructions(named("collections", "OrderedDict"), b"N}", text("__init__"), SYSTEM, b"s\x86b)R"),
    "state of a function": instructions(REBUILD, b"N}", text("__code__"), b"Ns\x86b)R"),
    "hidden in a parameter": instructions(PARAMETER, SYSTEM, TOUCH, b"\x85R\x88N\x87R"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("kind", ["pickle", "pt"])
def test_attack_runs_nothing(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)
    calls = []
    monkeypatch.setattr(os, "system", lambda *arguments: calls.append(arguments))
    path = tmp_path / "model.pt"
    if kind == "pickle":
        path.write_bytes(ATTACKS[name])
    else:  # in place of the description of the tensors in a real file
        write_as("pt", tmp_path, plain_state()).rename(tmp_path / "real.pt")
        with zipfile.ZipFile(tmp_path / "real.pt") as source, zipfile.ZipFile(path, "w") as target:
            for info in source.infolist():
                target.writestr(info, ATTACKS[name] if info.filename.endswith("data.pkl") else source.read(info))
    before = vars(collections.OrderedDict).copy()
    refusal(path)
    assert calls == []
    assert {entry.name for entry in tmp_path.iterdir()} <= {"model.pt", "real.pt"}
    assert vars(collections.OrderedDict) == before


def test_registered_extensions_are_not_used():
    copyreg.add_extension("os", "system", 77)
    try:
        with pytest.raises(ValueError, match="EXT1 is not supported"):
            read(b"\x80\x02\x82\x4d.")
    finally:
        copyreg.remove_extension("os", "system", 77)


HUGE = {
    "memo at a large index": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "text of 4 GB": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "bytes of 8 EB": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "number of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7fabc.",
    "tuples in tuples": b"\x80\x02)" + b"\x85" * 200_000 + b".",
    "lists in lists": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "dictionaries in dictionaries": b"\x80\x02" + b"}X\x01\x00\x00\x00a" * 100_000 + b"N" + b"s" * 100_000 + b".",
    "deep tuple as a key": b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
    "deep tuple in a set": b"\x80\x04\x8f()" + b"\x85" * 200_000 + b"\x90.",
    "2 ** 60 items by sharing": b"\x80\x02)" + b"2\x86" * 60 + b".",
    "no end": b"\x80\x02" + b"N" * 200_000,
    "marks": b"\x80\x02" + b"(" * 200_000 + b".",
    "long names": b"\x80\x02" + (b"}X\x10\x27\x00\x00" + b"a" * 10_000) * 300 + b"N" + b"s" * 300 + b".",
}


@pytest.mark.parametrize("name", HUGE)
def test_huge_claims_take_neither_time_nor_memory(tmp_path, name):
    (tmp_path / "model.pt").write_bytes(HUGE[name])
    start = time.monotonic()
    refusal(tmp_path / "model.pt")
    assert time.monotonic() - start < 10


def test_names_that_multiply_are_refused():
    shared = {"x" * 5000: {str(number): Stub("a") for number in range(20_000)}}
    with pytest.raises(ValueError, match="its names have more than 67,108,864 characters"):
        list(walk(shared))


@settings(max_examples=100, deadline=None)
@given(
    data=st.lists(st.sampled_from([op.code.encode("latin1") for op in pickletools.opcodes]), max_size=60),
    tail=st.binary(),
)
def test_random_instructions_give_a_value_or_an_ordinary_error(data, tail):
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        list(walk(read(b"".join(data) + tail)))


# Tensors, compared with torch's own reader.


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_read_as_torch_reads_them(tmp_path, zipped):
    whole = torch.randn(6, 5)
    tensors = {
        "transposed": whole.t(), "slice": whole[1:3, 2:], "half": whole.half(), "brain": whole.bfloat16(),
        "double": whole.double(), "float8": whole.to(torch.float8_e4m3fn), "whole": whole, "empty": torch.empty(0, 3),
        "scalar": torch.tensor(3.5), "int": torch.arange(7), "bool": torch.tensor([True, False]),
        "unsigned": torch.zeros(3, dtype=torch.uint16), "complex": torch.randn(2, 2, dtype=torch.complex64),
        "parameter": torch.nn.Parameter(whole), "buffer": torch.nn.Buffer(whole[0]),
    }  # fmt: skip
    if not zipped:
        del tensors["unsigned"], tensors["float8"]  # torch cannot read these types again
    torch.save(tensors, tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
    theirs = torch.load(tmp_path / "model.pt", weights_only=True)
    with open_weights(tmp_path / "model.pt") as file:
        assert file.shapes.keys() == tensors.keys()
        for name, expected in theirs.items():
            found = file.read(name)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
            assert torch.equal(found.flatten().view(torch.uint8), expected.detach().flatten().view(torch.uint8)), name


def test_archives_of_torchscript_are_read(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, but its files remain
        torch.jit.trace(module, torch.zeros(1, 3)).save(tmp_path / "model.pt")
    with open_weights(tmp_path / "model.pt") as file:
        for name, tensor in module.state_dict().items():
            assert torch.equal(file.read(name), tensor)


def test_damaged_values_are_noticed_by_their_checksum(tmp_path):
    path = write_as("pt", tmp_path, plain_state())
    content = path.read_bytes()
    place = content.index(plain_state()["class_token"].numpy().tobytes())
    path.write_bytes(content[:place] + b"\x00" + content[place + 1 :])
    assert "CRC" in refusal(path)


def test_reading_does_not_depend_on_the_suffix(tmp_path):
    for kind in ("safetensors", "npz", "pt"):
        path = write_as(kind, tmp_path, plain_state()).rename(tmp_path / f"{kind}.bin")
        assert_same(load_model(path, architecture=HEADS), noisy(PLAIN))
