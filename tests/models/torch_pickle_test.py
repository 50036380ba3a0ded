"""Pickles that would run code are refused, and do not run."""

import builtins
import io
import os
import pickle
import zipfile

import pytest

from ddjax.models import torch_pickle, weights

RAN = []


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def load(data):
    return torch_pickle.load(io.BytesIO(data))[0]


def pickled(value, protocol=2):
    return pickle.dumps(value, protocol)


@pytest.mark.parametrize("protocol", (2, 3, 4, 5))
def test_plain_values_come_back(protocol):
    shared = [1, 2.5, None]
    value = {"a": shared, "b": (shared, (), ("x",)), "c": {3: True, 4: [2**70, -1]}}
    got = load(pickled(value, protocol))
    assert got == value
    assert got["a"] is got["b"][0]


@pytest.mark.parametrize("protocol", (2, 4))
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (Calls(os.system, "exit 1"), os.system.__module__ + ".system"),
        (Calls(eval, "1 / 0"), ".eval"),
        (Calls(exec, "raise SystemExit"), ".exec"),
        (Calls(getattr, {}, "keys"), ".getattr"),
        (Calls(builtins.__import__, "antigravity"), ".__import__"),
        (Calls(RAN.append, 1), ".getattr"),
    ],
)
def test_a_call_is_refused_and_named(call, name, protocol):
    deep = {"model": {"weight": [Calls(dict, [("x", (call,))])]}}
    for value in (call, {"weight": call}, deep):
        with pytest.raises(ValueError, match="refused: it names") as caught:
            load(pickled(value, protocol))
        assert name in str(caught.value)
    assert not RAN


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'touch ran'\ntR.",  # GLOBAL, STRING, REDUCE
        b"(S'touch ran'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch ran'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x09touch ran\x85R.",
        b"\x80\x02cos\nsystem\nX\x09\0\0\0touch ran\x85\x81.",  # NEWOBJ
        b"\x80\x04\x8c\x02os\x94\x8c\x06systemq\x05\x93.",  # never called
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)Rcos\nsystem\nb.",  # BUILD
        b"\x80\x02\x82\x01.",  # an extension code, which copyreg would look up
        b"Pthe storage\n.",
    ],
)
def test_programs_in_opcodes_do_not_run(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
    with pytest.raises(ValueError, match=r"weights\.pth"):
        weights.read(path)
    assert [file.name for file in tmp_path.iterdir()] == ["weights.pth"]


def test_what_is_known_cannot_be_changed():
    """A state given to a known name, or to a dict, is dropped."""
    before = dict(vars(torch_pickle.Tensor))
    state = b"X\x07\0\0\0restoreK\x01s"
    for name in (b"torch\nSize", b"torch.nn.parameter\nParameter"):
        load(b"\x80\x02c" + name + b"\n}" + state + b"b.")
        load(b"\x80\x02c" + name + b"\nN}" + state + b"\x86b.")
    assert dict(vars(torch_pickle.Tensor)) == before


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02.",  # nothing to return
        b"\x80\x02h\x05.",  # never put
        b"\x80\x02Nt.",  # no mark
        b"\x80\x02}]K\x01e.",
        b"\x80\x02K\x01K\x02R.",
        b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.",
        b"\x80\x02X\xff\xff\xff\x7fabc.",  # a string of 2 GB in a file of 10 bytes
        b"\x80\x02N",
        b"\x80\x02\xff.",
    ],
)
def test_a_damaged_program_is_a_value_error(program):
    with pytest.raises(ValueError, match=r"pickle|expected|opcode"):
        load(program)


def test_a_huge_memo_index_takes_no_memory():
    """C's unpickler makes a table of that length: 34 GB."""
    assert load(b"\x80\x02Nr\xff\xff\xff\xff.") is None


def test_depth_overflows_no_stack():
    deep = b"N" + 100_000 * b"\x85"
    assert list(load(b"\x80\x02}K\x01" + deep + b"s.")) == [1]
    # As a key: its hash would go down all of it.
    assert load(b"\x80\x02}" + deep + b"K\x01s.") == {}
