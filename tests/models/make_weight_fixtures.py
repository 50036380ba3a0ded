"""Writes fixtures/weights.npz: small checkpoints as PyTorch writes them.

Run `python tests/models/make_weight_fixtures.py` with torch and safetensors installed.
Of each file the bytes are kept under `<file>`, and what torch reads back from it under
`<file>/<tensor>`; of the network at the end also images and logits.
"""

import argparse
import collections
import io
import pathlib
import pickle

import numpy as np

PATH = pathlib.Path(__file__).parent / "fixtures" / "weights.npz"


def main():
    import torch

    torch.manual_seed(0)
    tensors, stored = zoo(), {}
    for name, file in files(tensors).items():
        stored[name] = np.frombuffer(file, np.uint8)
        # torch itself says what is in its files.
        read = tensors if name == "safetensors" else unwrapped(torch_load(file))
        stored |= {f"{name}/{key}": plain(value) for key, value in read.items()}
    stored |= network()
    np.savez_compressed(PATH, **stored)


def zoo():
    """One tensor of each kind that a reader may get wrong."""
    import torch

    line = torch.arange(24.0)
    return collections.OrderedDict(
        # Square: a reader that ignores strides transposes it without an error.
        square=torch.randn(5, 5).t(),
        permuted=torch.randn(2, 3, 4, 5).permute(3, 0, 2, 1),
        channels_last=torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        # Two windows of one storage, one of them with a step.
        head=line[2:8].view(2, 3),
        tail=line[5::4],
        parameter=torch.nn.Parameter(torch.randn(3)),
        bfloat16=torch.randn(4, 2).bfloat16(),
        half=torch.randn(3).half(),
        double=torch.randn(2).double(),
        whole=torch.tensor([[-(2**40), 3]]),
        byte=torch.tensor([0, 255], dtype=torch.uint8),
        truth=torch.tensor([True, False]),
        number=torch.tensor(7.0),
        empty=torch.zeros(0, 3),
    )


def files(tensors):
    import safetensors.torch

    averaged = {f"module.{k}": v for k, v in tensors.items() if k in ("head", "half")}
    wrapped = {
        "model": {"head": tensors["tail"]},
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(lr=0.1, betas=(0.9, 0.999)),
        "epoch": 3,
        "best": np.float64(0.5),
        "milestones": collections.Counter([30, 60]),
        "classes": {"cat", "dog"},
        "ema": averaged,
    }
    contiguous = {k: v.detach().clone().contiguous() for k, v in tensors.items()}
    return {
        "zip": saved(tensors),
        "protocol4": saved(tensors, pickle_protocol=4),
        "stream": saved(tensors, _use_new_zipfile_serialization=False),
        "wrapped": saved(wrapped),
        "wrapped_stream": saved(wrapped, _use_new_zipfile_serialization=False),
        "ancient": ancient(),
        "safetensors": safetensors.torch.save(contiguous),
    }


def saved(value, **options):
    import torch

    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


class Empty:
    """An object that is made empty and gets its tensor afterwards."""

    def __init__(self, name, *state):
        self.name, self.state = name, state

    def __reduce__(self):
        return self.name, (), self.state


def ancient():
    """PyTorch 0.1's Parameters and tensors, as in torchvision's oldest files.

    Today's PyTorch still reads them, and main() asks it to; it no longer writes them.
    """
    import torch

    numbers = torch.arange(12.0) / 7
    whole = (numbers.untyped_storage(), 4, (2, 3), (1, 2))
    weight = Empty(torch.FloatTensor, *whole)
    values = [
        ["weight", Empty(torch.nn.Parameter, weight, None, {}, True, False)],
        ["bias", Empty(torch.FloatTensor, numbers.untyped_storage(), 1, (4,), (2,))],
    ]

    class Pickler(pickle._Pickler):  # in Python: C's would not take classes of torch
        def persistent_id(self, item):
            if isinstance(item, torch.UntypedStorage):
                return "storage", torch.FloatStorage, "94", "cpu", 12, None
            return None

    file = io.BytesIO()
    info = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    for value in (0x1950A86A20F9469CFC6C, 1001, info):
        pickle.dump(value, file, 2)
    Pickler(file, 2).dump(collections.OrderedDict(values))
    pickle.dump(["94"], file, 2)
    file.write((12).to_bytes(8, "little") + numbers.numpy().tobytes())
    return file.getvalue()


def torch_load(file):
    import torch

    return torch.load(io.BytesIO(file), weights_only=False)


def unwrapped(tree):
    tensors = tree.get("ema", tree)
    return {name.removeprefix("module."): value for name, value in tensors.items()}


def plain(tensor):
    import torch

    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


# The twin of the network in weights_test.py -------------------------------------------


def network():
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 4, (3, 2)), nn.BatchNorm2d(4))
            self.depthwise = nn.Conv2d(4, 4, 3, groups=4, bias=False)
            self.norm = nn.LayerNorm(4, eps=1e-6)
            self.cls_token = nn.Parameter(torch.randn(1, 1, 4))
            self.expand = nn.Conv2d(4, 6, 1)  # ours is a linear layer
            self.head = nn.Linear(6, 5)

        def forward(self, x):
            x = torch.relu(self.depthwise(torch.relu(self.stem(x))))
            x = x.flatten(2).transpose(1, 2) + self.cls_token
            x = self.norm(x).transpose(1, 2)[..., None]
            return self.head(self.expand(x).mean((2, 3)))

    net = Net()
    net.load_state_dict({k: torch.rand(v.shape) for k, v in net.state_dict().items()})
    images = torch.rand(2, 8, 9, 3)
    logits = net.eval()(images.permute(0, 3, 1, 2)).detach()
    file = saved(net.state_dict())
    names = [name for name in torch_load(file) if "tracked" not in name]
    return {
        "network": np.frombuffer(file, np.uint8),
        "network_names": np.array(names),
        "images": images.numpy(),
        "logits": logits.numpy(),
    }


if __name__ == "__main__":
    main()
