"""PyTorch's side of `benchmarks.convolution`: python convolution.py GIVEN.npz."""

import json
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Network(nn.Module):
    """ConvNet-3 with BatchNorm, and the names of ours."""

    def __init__(self, channels, width, side):
        super().__init__()
        layers, inputs = [], channels
        for _ in range(3):
            layers += [
                nn.Conv2d(inputs, width, 3, padding=1),
                nn.BatchNorm2d(width, momentum=0.0),
            ]
            # (Its statistics stay as given, whatever is timed.)
            layers += [nn.ReLU(), nn.AvgPool2d(2)]
            inputs = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * (side // 8) ** 2, 10)

    def forward(self, images):
        x = (images - 0.5) / 0.25
        return self.classifier(self.features(x).flatten(1))


def gradient(work, network, images, labels):
    """The tensors of one gradient."""
    network.train(work == "squeeze")
    if work == "squeeze":
        loss = functional.cross_entropy(network(images), labels)
        return torch.autograd.grad(loss, list(network.parameters()))
    images = images.detach().requires_grad_()
    # The sum: an image's gradient does not depend on how many there are.
    loss = functional.cross_entropy(network(images), labels, reduction="sum")
    return torch.autograd.grad(loss, [images])


def main():
    given = dict(np.load(sys.argv[1]))
    images = torch.from_numpy(given.pop("images")).permute(0, 3, 1, 2)
    labels = torch.from_numpy(given.pop("labels")).long()
    width = len(given["features.0.bias"])
    network = Network(images.shape[1], width, images.shape[2])
    state = {name: torch.from_numpy(np.array(x)) for name, x in given.items()}
    network.load_state_dict(state, strict=False)
    # The layout that is faster for all of these.
    network = network.to(memory_format=torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    for line in sys.stdin:
        word, work, *more = line.split()
        # Recovering needs no gradient in the parameters.
        network.requires_grad_(work == "squeeze")
        if word == "size":
            found = gradient(work, network, images, labels)
            answer = float(np.sqrt(sum((x.double() ** 2).sum().item() for x in found)))
        else:
            answer, began = float("inf"), time.perf_counter()
            while time.perf_counter() - began < float(more[0]):
                start = time.perf_counter()
                gradient(work, network, images, labels)
                answer = min(answer, time.perf_counter() - start)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
