"""Writes fixtures/: what PyTorch computes, so that the tests need no PyTorch.

Run `python tests/models/make_fixtures.py` with torch installed, and nothing else: the
networks below are our own definitions, in float64. `<network>_weights.npz` holds
tensors under torchvision's names (drawn here, exact in float16), `<case>.npz` images
(uint8) and results (float32). Both ResNets have one set of weights; the small stem's
kernel is the middle of the large one's.
"""

import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "fixtures"

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CLASSES, WIDTH = 5, 4
# Odd and unequal sides, so that a wrong padding or a swapped axis shows.
CASES = {
    "resnet18_7x7": (40, 48),
    "resnet18_3x3": (9, 12),
    "convnet_batch": (9, 10),
    "convnet_instance": (9, 10),
}
# (top, left, height, width) of crops.
BOXES = ((0, 0, 7, 9), (2, 1, 4, 5), (3, 4, 1, 3), (1, 0, 5, 1), (6, 8, 1, 1))


def main():
    FOLDER.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    resnet18 = draw(random, resnet18_shapes())
    save("resnet18_weights", resnet18)
    for name, shape in CASES.items():
        # Images of different brightness: BatchNorm and InstanceNorm then differ.
        level = np.array([0.2, 0.5, 0.7, 1.0])[:, None, None, None]
        images = (level * random.integers(0, 256, (4, *shape, 3))).astype(np.uint8)
        if "convnet" in name:
            forward, weights = convnet, draw(random, convnet_shapes(name, shape))
            save(f"{name}_weights", weights)
        else:
            forward, weights = resnet18_of(name), dict(resnet18)
            if name == "resnet18_3x3":
                weights["conv1.weight"] = weights["conv1.weight"][:, :, 2:5, 2:5]
        save(name, {"images": images, **results(forward, weights, images)})
    save("crop_resize", crops(random.integers(0, 256, (2, 7, 9, 3)).astype(np.uint8)))


def save(name, arrays):
    small = {
        key: value.astype(np.float32) if value.dtype == np.float64 else value
        for key, value in arrays.items()
    }
    np.savez_compressed(FOLDER / f"{name}.npz", **small)


# Weights ------------------------------------------------------------------------------


def draw(random, shapes):
    """Random tensors; none of them is what a fresh network has."""
    drawn = {}
    for name, shape in shapes.items():
        values = random.standard_normal(shape)
        if name.endswith("running_var"):
            values = random.uniform(0.5, 1.5, shape)
        elif name.endswith(("running_mean", "bias")):
            values *= 0.3
        elif len(shape) == 1:
            values = 1 + 0.3 * values
        else:
            values *= np.sqrt(2 / np.prod(shape[1:]))
        drawn[name] = values.astype(np.float16)
    return drawn


def resnet18_shapes():
    shapes = {"conv1.weight": (WIDTH, 3, 7, 7), **norm_shapes("bn1", WIDTH)}
    inputs = WIDTH
    for stage in range(4):
        width = WIDTH * 2**stage
        for block in range(2):
            prefix = f"layer{stage + 1}.{block}."
            shapes[prefix + "conv1.weight"] = (width, inputs, 3, 3)
            shapes |= norm_shapes(prefix + "bn1", width)
            shapes[prefix + "conv2.weight"] = (width, width, 3, 3)
            shapes |= norm_shapes(prefix + "bn2", width)
            if inputs != width:
                shapes[prefix + "downsample.0.weight"] = (width, inputs, 1, 1)
                shapes |= norm_shapes(prefix + "downsample.1", width)
            inputs = width
    return shapes | {"fc.weight": (CLASSES, inputs), "fc.bias": (CLASSES,)}


def convnet_shapes(name, shape):
    shapes, inputs = {}, 3
    for layer in (0, 4):  # ReLU and pooling are layers 2 and 3
        shapes[f"features.{layer}.weight"] = (WIDTH, inputs, 3, 3)
        shapes[f"features.{layer}.bias"] = (WIDTH,)
        norm = norm_shapes(f"features.{layer + 1}", WIDTH)
        if name == "convnet_instance":
            norm = {key: norm[key] for key in norm if "running" not in key}
        shapes |= norm
        inputs = WIDTH
    features = WIDTH * (shape[0] // 4) * (shape[1] // 4)
    head = {"classifier.weight": (CLASSES, features), "classifier.bias": (CLASSES,)}
    return shapes | head


def norm_shapes(name, width):
    fields = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{field}": (width,) for field in fields}


# Networks: (x, tensors, train, seen) -> (logits, features); `seen` collects the inputs
# of the BatchNorms. torch is imported late: pytest reads this file too, for doctests.


def norm(x, tensors, name, train, seen):
    from torch.nn import functional

    scale, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    if f"{name}.running_mean" not in tensors:
        return functional.group_norm(x, x.shape[1], scale, bias, eps=1e-5)
    seen.append(x)
    running = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
    return functional.batch_norm(
        x, *running, scale, bias, training=train, momentum=0.1, eps=1e-5
    )


def resnet18_of(name):
    def resnet18(x, tensors, train, seen):
        import torch
        from torch.nn import functional

        def conv(x, name, stride):
            kernel = tensors[f"{name}.weight"]
            return functional.conv2d(x, kernel, None, stride, kernel.shape[-1] // 2)

        large = name == "resnet18_7x7"
        x = conv(x, "conv1", 2 if large else 1)
        x = torch.relu(norm(x, tensors, "bn1", train, seen))
        if large:
            x = functional.max_pool2d(x, 3, 2, 1)
        for stage in range(4):
            for block in range(2):
                prefix = f"layer{stage + 1}.{block}."
                stride = 2 if stage > 0 and block == 0 else 1
                y = conv(x, prefix + "conv1", stride)
                y = torch.relu(norm(y, tensors, prefix + "bn1", train, seen))
                y = conv(y, prefix + "conv2", 1)
                y = norm(y, tensors, prefix + "bn2", train, seen)
                if prefix + "downsample.0.weight" in tensors:
                    x = conv(x, prefix + "downsample.0", stride)
                    x = norm(x, tensors, prefix + "downsample.1", train, seen)
                x = torch.relu(x + y)
        features = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        logits = functional.linear(features, tensors["fc.weight"], tensors["fc.bias"])
        return logits, features

    return resnet18


def convnet(x, tensors, train, seen):
    import torch
    from torch.nn import functional

    for layer in (0, 4):
        name = f"features.{layer}"
        kernel, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        x = functional.conv2d(x, kernel, bias, padding=1)
        x = torch.relu(norm(x, tensors, f"features.{layer + 1}", train, seen))
        x = functional.avg_pool2d(x, 2)
    features = x.flatten(1)
    logits = functional.linear(
        features, tensors["classifier.weight"], tensors["classifier.bias"]
    )
    return logits, features


# Results ------------------------------------------------------------------------------


def results(forward, weights, images):
    """Both modes of a network, what its BatchNorms saw, and the pixels' gradient."""
    import torch

    tensors = {key: torch.tensor(value).double() for key, value in weights.items()}
    pixels = (torch.tensor(images).double() / 255).requires_grad_()
    x = ((pixels - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    seen = []
    logits, features = forward(x, tensors, False, seen)
    # Of one image only: the file stays small.
    gradient = torch.autograd.grad((logits * torch.cos(logits)).sum(), pixels)[0][1]
    out = {"logits": logits, "features": features, "gradient": gradient}
    for layer, value in enumerate(seen):
        out[f"mean_{layer}"] = value.mean((2, 3))
        out[f"var_{layer}"] = value.var((2, 3), correction=0)
    with torch.no_grad():
        # Updates the running statistics.
        out["train_logits"], _ = forward(x, tensors, True, [])
    out |= {key: value for key, value in tensors.items() if "running" in key}
    return {key: value.detach().numpy() for key, value in out.items()}


def crops(images):
    """torchvision's resized_crop: the crop first, then torch's interpolation of it."""
    import torch
    from torch.nn import functional

    x = torch.tensor(images).double().permute(0, 3, 1, 2)
    resized = [
        functional.interpolate(
            x[:, :, top : top + height, left : left + width],
            size=x.shape[2:],
            mode="bilinear",
            align_corners=False,
        ).permute(0, 2, 3, 1)
        for top, left, height, width in BOXES
    ]
    resized = torch.stack(resized).numpy()
    return {"images": images, "boxes": np.array(BOXES), "resized": resized}


if __name__ == "__main__":
    main()
