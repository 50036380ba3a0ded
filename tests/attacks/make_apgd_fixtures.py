"""Writes fixtures/apgd.npz: what the authors' AutoAttack does, in float64.

Run `python tests/attacks/make_apgd_fixtures.py` with torch and `pyautoattack` 0.2.0
(their code, packaged) installed. The network is our own: two convolutions with
BatchNorm, weights exact in float16. Images are uint8, the noise of starts too (u / 255
in [0, 1] for uniform numbers, (u - 127.5) / 64 for normal ones). Pixels of results are
told by two weighted sums for each image, `digests`; masks and losses as they are.
"""

import contextlib
import pathlib
import warnings

import numpy as np
import torch
from pyautoattack import autopgd_base, fab_projections, fab_pt

FILE = pathlib.Path(__file__).parent / "fixtures" / "apgd.npz"
SHAPE, CLASSES, BATCH = (3, 8, 8), 10, 40
EPS, EPS_L2 = 2 / 255, 0.1
WIDTH = 8

# The attacks cast their images; here every number is a double.
torch.set_default_dtype(torch.float64)
torch.Tensor.float = lambda tensor: tensor.double()


def main():
    FILE.parent.mkdir(exist_ok=True)
    random = np.random.default_rng(7)
    weights = draw_weights(random)
    model = network({k: torch.tensor(v.astype(np.float64)) for k, v in weights.items()})
    pixels = random.integers(0, 256, (BATCH, *SHAPE), dtype=np.uint8)
    noise = random.integers(0, 256, (BATCH, *SHAPE), dtype=np.uint8)
    noise[:, 0, 0, 0] = 255  # so that the largest is the same for all
    images = torch.tensor(pixels / 255.0)
    labels = model(images).argmax(1)
    labels[0] = (labels[0] + 1) % CLASSES  # one is misclassified as it is
    found = {f"weights/{name}": value for name, value in weights.items()}
    found |= {"pixels": pixels, "noise": noise, "labels": labels.numpy()}
    found |= ascents(model, images, labels, noise)
    found |= boundaries(model, images, labels, noise)
    found |= projections(random)
    np.savez_compressed(FILE, **found)
    report(found)


def report(found):
    for name, value in found.items():
        if name.endswith(("correct", "distance")):
            low = np.asarray(value, float)
            print(name, low.mean(), np.sum((low > 0) & (low <= EPS)))
    print(FILE.stat().st_size, "bytes")


# The network --------------------------------------------------------------------------


def draw_weights(random):
    shapes = {
        "conv1": (WIDTH, 3, 3, 3),
        "mean1": (WIDTH,),
        "conv2": (WIDTH, WIDTH, 3, 3),
        "mean2": (WIDTH,),
        "linear": (CLASSES, WIDTH * 16),
    }
    drawn = {}
    for name, shape in shapes.items():
        size = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.3
        drawn[name] = (size * random.standard_normal(shape)).astype(np.float16)
    for name in ("var1", "scale1", "bias1", "var2", "scale2", "bias2"):
        drawn[name] = random.uniform(0.5, 1.5, WIDTH).astype(np.float16)
        if name.startswith("bias"):
            drawn[name] -= np.float16(1)
    return drawn


def network(weights):
    def norm(x, i):
        statistics = weights[f"mean{i}"], weights[f"var{i}"]
        affine = weights[f"scale{i}"], weights[f"bias{i}"]
        return torch.nn.functional.batch_norm(x, *statistics, *affine)

    def model(images):
        x = (images - 0.5) / 0.25
        x = torch.nn.functional.conv2d(x, weights["conv1"], padding=1)
        x = torch.relu(norm(x, 1))
        x = torch.nn.functional.conv2d(x, weights["conv2"], stride=2, padding=1)
        x = torch.relu(norm(x, 2))
        return x.flatten(1) @ weights["linear"].T

    return model


# The attacks --------------------------------------------------------------------------


@contextlib.contextmanager
def drawn(noise):
    """Within it torch draws our noise (FAB leaves the first image out)."""
    uniform, normal = torch.rand, torch.randn
    torch.rand = lambda shape: torch.tensor(noise[-shape[0] :] / 255.0)
    torch.randn = lambda shape: torch.tensor((noise[-shape[0] :] - 127.5) / 64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.rand, torch.randn = uniform, normal


def digests(images):
    """[2, B], weighted sums of the pixels [B, 3, 8, 8]."""
    flat = images.detach().flatten(1).numpy()
    places = np.arange(flat.shape[1])
    return np.stack([flat @ np.cos(places), flat @ np.sin(1.7 * places)])


def ascents(model, images, labels, noise):
    found = {}
    cases = [(loss, "Linf", n, None) for loss in ("ce", "dlr") for n in (10, 20, 100)]
    cases += [("dlr-targeted", "Linf", 100, rank) for rank in (2, 5, 9)]
    cases += [(loss, "L2", 20, None) for loss in ("ce", "dlr")]
    for loss, norm, steps, rank in cases:
        kind = autopgd_base.APGDAttack
        if rank:
            kind = autopgd_base.APGDAttack_targeted
        options = {} if rank else {"loss": loss}
        eps = EPS if norm == "Linf" else EPS_L2
        attack = kind(model, n_iter=steps, norm=norm, eps=eps, **options)
        attack.init_hyperparam(images)
        if rank:
            attack.y_target = model(images).sort(dim=1)[1][:, -rank]
        with drawn(noise):
            _, correct, best_loss, wrong = attack.attack_single_run(images, labels)
        name = f"apgd/{loss}/{norm}/{steps}/{rank or 0}"
        found[f"{name}/correct"] = correct.numpy()
        found[f"{name}/best_loss"] = best_loss.numpy()
        found[f"{name}/digests"] = digests(wrong)
    return found


def boundaries(model, images, labels, noise):
    found = {}
    cases = [(rank, 100, False) for rank in (2, 5, 9)]
    cases += [(0, 100, False), (0, 20, True), (3, 20, True)]
    for rank, steps, noisy in cases:
        attack = fab_pt.FABAttack_PT(model, n_iter=steps, eps=EPS, targeted=rank > 0)
        attack.target_class = rank or None
        with drawn(noise):
            wrong = attack.attack_single_run(
                images, labels, use_rand_start=noisy, is_targeted=rank > 0
            )
        distance = (wrong - images).abs().flatten(1).max(1)[0]
        name = f"fab/{rank}/{steps}/{int(noisy)}"
        found[f"{name}/distance"] = distance.numpy()
        found[f"{name}/digests"] = digests(wrong)
    return found


def projections(random):
    """Points [24, 30]; a third of the planes are near, far, and beyond the box."""
    points = random.uniform(0, 1, (24, 30))
    points[:, :3] = random.integers(0, 2, (24, 3))  # at their walls
    normals = random.standard_normal((24, 30))
    normals[random.uniform(size=normals.shape) < 0.2] = 0
    reach = np.repeat([0.001, 0.2, 3.0], 8)[:, None]
    towards = points + reach * np.sign(normals) * random.choice([-1, 1], (24, 1))
    offsets = np.sum(normals * towards, 1)
    moves = fab_projections.projection_linf(
        *map(torch.tensor, (points, normals, offsets))
    )
    return {
        "box/points": points,
        "box/normals": normals,
        "box/offsets": offsets,
        "box/moves": moves.numpy(),
    }


if __name__ == "__main__":
    main()
