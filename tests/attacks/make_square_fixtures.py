"""Writes fixtures/square.npz and fixtures/autoattack.npz: the authors' code at work.

Run `python tests/attacks/make_square_fixtures.py` with torch, torchattacks 3.5.1 and
`pyautoattack` 0.2.0 (AutoAttack by its authors, packaged) installed. The network is
ours: a ConvNet of two blocks with BatchNorm, trained a little on blurred noise, weights
rounded to float16. What torch draws for Square is kept as it is drawn, in [0, 1). Of
the whole AutoAttack the masks after each stage are kept, for three seeds, and of what
torchattacks calls so.
"""

import pathlib

import numpy as np
import torch
from pyautoattack import AutoAttack, square
from torch import nn
from torchattacks import AutoAttack as TenSteps
from torchattacks import Square

FOLDER = pathlib.Path(__file__).parent / "fixtures"
CLASSES, WIDTH, SIDE = 5, 6, 8
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
POINTS, REPLAYED, QUERIES = 200, 12, 300
EPS, EPS_REPLAYED, SEEDS = 5 / 255, 6 / 255, 3


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model, pixels, labels = trained()
    images, labels = as_torch(pixels), torch.tensor(labels)
    tensors = {f"weights/{name}": t.numpy() for name, t in weights_of(model).items()}
    points = {"pixels": pixels, "labels": labels.numpy(), **tensors}
    np.savez_compressed(
        FOLDER / "autoattack.npz", **points, **stages(model, images, labels)
    )
    # In float64, where it does not matter in which order a layer sums.
    few = as_torch(pixels[:REPLAYED], torch.float64), labels[:REPLAYED]
    np.savez_compressed(FOLDER / "square.npz", **replays(model.double(), *few))
    for file in ("autoattack", "square"):
        print(file, (FOLDER / f"{file}.npz").stat().st_size, "bytes")


def as_torch(pixels, dtype=torch.float32):
    # Contiguous: AutoAttack takes views of gradients, which lie as the images do.
    images = torch.tensor(pixels).permute(0, 3, 1, 2).contiguous()
    return images.to(dtype) / 255


# The network --------------------------------------------------------------------------


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        layers = []
        for inputs in (3, WIDTH):
            layers += [nn.Conv2d(inputs, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH)]
            layers += [nn.ReLU(), nn.AvgPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(WIDTH * (SIDE // 4) ** 2, CLASSES)

    def forward(self, x):
        mean, std = (torch.tensor(v, dtype=x.dtype)[:, None, None] for v in (MEAN, STD))
        return self.classifier(self.features((x - mean) / std).flatten(1))


def weights_of(model):
    state = model.state_dict()
    return {k: v.half() for k, v in state.items() if "num_batches" not in k}


def trained():
    """A network in evaluation mode, and images it has not seen with their labels."""
    random = np.random.default_rng(0)
    prototypes = random.uniform(0.2, 0.8, (CLASSES, SIDE, SIDE, 3))

    def draw(count):
        labels = random.integers(0, CLASSES, count)
        noise = 0.2 * random.standard_normal((count, SIDE, SIDE, 3))
        mixed = 0.5 + 0.35 * (prototypes[labels] - 0.5) + noise
        return np.uint8(255 * np.clip(mixed, 0, 1)), labels

    pixels, labels = draw(2000)
    images = as_torch(pixels)
    model = Network()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(10):
        for rows in torch.randperm(len(images)).split(100):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(
                model(images[rows]), torch.tensor(labels)[rows]
            )
            loss.backward()
            optimizer.step()
    model.load_state_dict(weights_of(model), strict=False)
    return model.eval(), *draw(POINTS)


# Square -------------------------------------------------------------------------------


def replays(model, images, labels):
    """Images, query counts and draws of both packages' Square, each by its schedule."""
    found = {"eps": EPS_REPLAYED, "queries": QUERIES}
    makers = {
        "plain": square.SquareAttack(
            model, n_queries=QUERIES, eps=EPS_REPLAYED, seed=0, resc_schedule=False
        ),
        "rescaled": Square(model, eps=EPS_REPLAYED, n_queries=QUERIES, seed=0),
    }
    for name, attack in makers.items():
        torch.manual_seed(1)
        attack.device, attack.ndims = torch.device("cpu"), 3
        drawn, (counts, adversarial) = recorded(
            lambda attack=attack: attack.attack_single_run(images, labels)
        )
        # Stripes, and then top, left and signs of each window.
        windows = [torch.cat(drawn[i : i + 3]) for i in range(1, len(drawn), 3)]
        found[f"{name}/stripes"] = drawn[0].reshape(-1, 3, 1, SIDE).permute(0, 2, 3, 1)
        found[f"{name}/windows"] = torch.stack(windows)
        found[f"{name}/counts"] = counts.int()
        found[f"{name}/images"] = adversarial.permute(0, 2, 3, 1)
        print(name, counts.int().tolist())
    return found


def recorded(run):
    """What `torch.rand` gave, flat, and what the run returned."""
    drawn, rand = [], torch.rand

    def record(*shape, **options):
        numbers = rand(*shape, **options)
        drawn.append(numbers.flatten())
        return numbers

    torch.rand = record
    returned = run()
    torch.rand = rand
    return drawn, returned


# The whole AutoAttack -----------------------------------------------------------------


def stages(model, images, labels):
    """Masks [seeds, stages, N] after each stage of the standard version; torchattacks'."""
    names, masks = ("apgd-ce", "apgd-t", "fab-t", "square"), []
    for seed in range(SEEDS):
        attack = AutoAttack(model, eps=EPS, seed=seed)
        attack.apgd_targeted.n_target_classes = CLASSES - 1
        attack.fab.n_target_classes = CLASSES - 1
        attack.square.n_queries = QUERIES
        robust = model(images).argmax(1) == labels
        for name in names:
            attack.attacks_to_run = [name]
            rows = robust.nonzero()[:, 0]
            found, _ = attack.run_standard_evaluation(images[rows], labels[rows])
            robust[rows] = model(found).argmax(1) == labels[rows]
            masks.append(robust.numpy().copy())
        print(seed, [100 * mask.mean() for mask in masks[-len(names) :]])
    ended = [ten_steps(model, images, labels, seed) for seed in range(SEEDS)]
    print("clean", (model(images).argmax(1) == labels).float().mean())
    return {
        "eps": EPS,
        "queries": QUERIES,
        "masks": np.reshape(masks, (SEEDS, len(names), -1)),
        "torchattacks": np.array(ended),
    }


def ten_steps(model, images, labels, seed):
    """[stages, N] bool, robust after each part of torchattacks' AutoAttack."""
    whole = TenSteps(model, eps=EPS, n_classes=CLASSES, seed=seed)._autoattack
    whole.attacks[-1].n_queries = QUERIES
    robust, masks = model(images).argmax(1) == labels, []
    for attack in whole.attacks:
        rows = robust.nonzero()[:, 0]
        found = attack(images[rows], labels[rows])
        robust[rows] = model(found).argmax(1) == labels[rows]
        masks.append(robust.numpy().copy())
    print("torchattacks", seed, [100 * mask.mean() for mask in masks])
    return masks


if __name__ == "__main__":
    main()
