"""Writes fixtures/trees.npz and references.npz: what torchvision and timm have.

Run `python tests/models/make_reference_fixtures.py` with torch, torchvision and timm
installed. `trees.npz` holds the names and shapes of each published network's tensors at
224 pixels and 1,000 classes, and its norms' epsilon. `references.npz` holds results (float64 computed, float32
stored) of narrow and shallow ones, built from the same classes. Their weights and
images are not stored: `draw` makes them from their names, here and in
reference_test.py.
"""

import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "fixtures"
CLASSES = 5
DERIVED = ("num_batches_tracked", "relative_position_index")
# (height, width) of the images; the networks are in `network_of`. Odd and unequal
# sides, so that a wrong padding or a swapped axis shows.
CASES = {
    "resnet50_large": (40, 49),
    "resnet50_small": (9, 12),
    "resnet18_instance": (17, 10),
    "resnetap10_small": (17, 10),
    "resnetap10_mid": (37, 34),
    "resnetap10_large": (66, 40),
    "vgg11_batch_mlp": (66, 40),
    "vgg11_none_mlp": (66, 40),
    "vgg11_instance_linear": (28, 30),
    "vgg11_batch_linear": (64, 33),
    "mobilenet_v2_large": (47, 64),
    "mobilenet_v2_small": (17, 24),
    "efficientnet_b0_large": (47, 64),
    "efficientnet_b0_small": (17, 24),
    "vit_tiny": (32, 48),
    "swin_tiny_large": (36, 44),  # maps of 9x11 and 5x6 under windows of 7
    "swin_tiny_small": (16, 32),  # maps of 8x16 and 4x8 under windows of 4
    "convnext_tiny_large": (36, 44),  # maps of 9x11, 4x5, 2x2 and 1x1
    "convnext_tiny_small": (16, 20),
}
# Their gradient would show nothing that their siblings' does not, and takes long to
# compile.
WITHOUT_GRADIENT = {
    "resnet50_large",
    "mobilenet_v2_large",
    "efficientnet_b0_large",
    "swin_tiny_small",
}
# Cases whose fresh weights are the reference's own.
INITIALISED = (
    "resnet50_large",
    "mobilenet_v2_large",
    "efficientnet_b0_large",
    "vit_tiny",
    "swin_tiny_large",
    "convnext_tiny_large",
)


def main():
    import timm
    import torch
    from torchvision import models

    published = {
        "resnet18": models.resnet18,
        "resnet50": models.resnet50,
        "resnet101": models.resnet101,
        "resnetap10": lambda: resnetap10(64, "large", "batch", 1000),
        "vgg11_none": models.vgg11,
        "vgg11_batch": models.vgg11_bn,
        "mobilenet_v2": models.mobilenet_v2,
        "efficientnet_b0": models.efficientnet_b0,
        "vit_tiny": lambda: timm.create_model("vit_tiny_patch16_224"),
        "vit_small": lambda: timm.create_model("vit_small_patch16_224"),
        "swin_tiny": models.swin_t,
        "convnext_tiny": models.convnext_tiny,
    }
    trees = {}
    for name, make in published.items():
        network = make()
        rows = [f"{k} {'x'.join(map(str, s))}" for k, s in shapes(network)]
        trees[name] = np.array(rows)
        # Too small to show in results: what the norms add to the variance.
        eps = {m.eps for m in network.modules() if hasattr(m, "eps")}
        trees[f"{name}/eps"] = np.array(sorted(eps))
    np.savez_compressed(FOLDER / "trees.npz", **trees)
    torch.manual_seed(0)
    results = {}
    for case, (height, width) in CASES.items():
        images = draw(case, (2, height, width, 3), "image")
        network = network_of(case, (height, width))
        if case in INITIALISED:
            results |= {f"{case}/{k}": v for k, v in fresh(network).items()}
        found = run(network, images)
        if case in WITHOUT_GRADIENT:
            del found["gradient"]
        results |= {f"{case}/{k}": v.astype(np.float32) for k, v in found.items()}
    results |= averages()
    np.savez_compressed(FOLDER / "references.npz", **results)


def shapes(network):
    """Pairs (name, shape) of the tensors that are weights or running statistics."""
    state = network.state_dict().items()
    return [(k, tuple(v.shape)) for k, v in state if not k.endswith(DERIVED)]


def draw(name, shape, kind="weight"):
    """Random numbers that depend on the name alone; none is what a network starts with.

    (RandomState's stream is frozen by NumPy; default_rng's is not.)
    """
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if kind == "image":
        # Images of different brightness: BatchNorm and InstanceNorm then differ.
        return random.random_sample(shape) * np.array([0.5, 1])[:, None, None, None]
    if name.endswith("running_var"):
        return random.uniform(0.5, 1.5, shape)
    values = random.standard_normal(shape)
    if name.endswith(("running_mean", "bias")):
        return 0.3 * values
    if sum(n > 1 for n in shape) < 2:  # vectors
        return 1 + 0.3 * values
    return values * np.sqrt(2 / np.prod(shape[1:]))


def fresh(network):
    """Names of the tensors, and mean, standard deviation and largest deviation."""
    tensors = {k: network.state_dict()[k].double() for k, _ in shapes(network)}
    values = [
        (v.mean(), v.std(correction=0), (v - v.mean()).abs().max())
        for v in tensors.values()
    ]
    return {"names": np.array(list(tensors)), "fresh": np.array(values, np.float32)}


def run(network, images):
    """Logits, features, moments of the norms' inputs, and the pixels' gradient."""
    import torch

    state = {k: torch.tensor(draw(k, shape)) for k, shape in shapes(network)}
    network.double().eval().load_state_dict(state, strict=False)
    seen, features = [], []
    for module in network.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.LayerNorm)):
            module.register_forward_pre_hook(lambda m, x: seen.append(summary(m, *x)))
    head = [m for m in network.modules() if isinstance(m, torch.nn.Linear)][-1]
    head.register_forward_pre_hook(lambda _, x: features.append(x[0]))
    pixels = torch.tensor(images, requires_grad=True)
    logits = network((pixels.permute(0, 3, 1, 2) - 0.5) / 0.25)
    (gradient,) = torch.autograd.grad((logits * torch.cos(logits)).sum(), pixels)
    out = {"logits": logits, "features": features[0]}
    # Of one image and every third pixel: the file stays small.
    out["gradient"] = gradient[1, ::3, ::3]
    if seen:
        out["moments"] = torch.stack(seen)
    return {key: value.detach().numpy() for key, value in out.items()}


def averages():
    """VGG's adaptive average of maps larger than its 7 bins, with overlaps."""
    import torch

    x = torch.tensor(draw("averages", (2, 3, 9, 13)))
    averaged = torch.nn.functional.adaptive_avg_pool2d(x, 7)
    return {"averages/averaged": averaged.numpy().astype(np.float32)}


def summary(module, x):
    """Mean over channels of the mean and the variance of each image, [2, N]."""
    import torch

    if isinstance(module, torch.nn.BatchNorm2d) or "2d" in type(module).__name__:
        x = x.movedim(1, -1)
    x = x.flatten(1, -2)
    return torch.stack([x.mean(1).mean(-1), x.var(1, correction=0).mean(-1)])


# Networks -----------------------------------------------------------------------------


def network_of(case, size):
    """The reference's own class, narrow and shallow."""
    from timm.models import vision_transformer
    from torchvision.models import convnext, swin_transformer

    small = case.endswith("small")
    if case.startswith("resnet50"):
        return resnet("Bottleneck", [1, 2, 1, 1], small)
    if case == "resnet18_instance":
        return resnet("BasicBlock", [2, 1, 1, 1], True, group_norm)
    if case.startswith("resnetap10"):
        stem = case.split("_")[1]
        norm = "batch" if stem == "mid" else "instance"
        return resnetap10(4, stem, norm, CLASSES)
    if case.startswith("vgg11"):
        return vgg11(*case.split("_")[1:], size)
    if case.startswith("mobilenet"):
        return mobilenet(small)
    if case.startswith("efficientnet"):
        return efficientnet(small)
    if case == "vit_tiny":
        return vision_transformer.VisionTransformer(
            size, 8, num_classes=CLASSES, embed_dim=24, depth=2, num_heads=3
        )
    if case.startswith("swin"):
        patch, window = (2, 4) if small else (4, 7)
        return swin_transformer.SwinTransformer(
            [patch] * 2,
            16,
            [2, 2],
            [1, 2],
            [window] * 2,
            num_classes=CLASSES,
        )
    widths, blocks = (8, 16, 32, 64, None), (1, 1, 2, 1)
    settings = map(convnext.CNBlockConfig, widths, widths[1:], blocks)
    network = convnext.ConvNeXt(list(settings), num_classes=CLASSES)
    if small:
        network.features[0][0] = conv(3, 8, 2, stride=2, bias=True)
    return network


def conv(inputs, outputs, size, **options):
    from torch import nn

    return nn.Conv2d(inputs, outputs, size, **{"bias": False} | options)


def group_norm(channels):
    from torch import nn

    return nn.GroupNorm(channels, channels)


def resnet(block, blocks, small, norm=None):
    from torch import nn
    from torchvision.models import resnet

    class Narrow(resnet.ResNet):
        """Of width 4 instead of 64."""

        def _make_layer(self, block, planes, *rest, **options):
            if planes == 64:  # the first
                self.inplanes, self.bn1 = 4, self._norm_layer(4)
                size = (3, 1, 1) if small else (7, 2, 3)
                self.conv1 = nn.Conv2d(3, 4, *size, bias=False)
            return super()._make_layer(block, planes // 16, *rest, **options)

    block = getattr(resnet, block)
    network = Narrow(block, blocks, norm_layer=norm)
    network.fc = nn.Linear(32 * block.expansion, CLASSES)
    if small:
        network.maxpool = nn.Identity()
    return network


def resnetap10(width, stem, norm, classes):
    """Our own definition: IDC's names, and pooling where others have strides."""
    from collections import OrderedDict

    from torch import nn

    norm = nn.BatchNorm2d if norm == "batch" else group_norm

    class Block(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.conv1 = conv(inputs, outputs, 3, padding=1)
            self.bn1 = norm(outputs)
            self.conv2 = conv(outputs, outputs, 3, padding=1)
            self.bn2 = norm(outputs)
            grows = inputs != outputs
            self.pool = nn.AvgPool2d(2) if grows else nn.Identity()
            self.downsample = nn.Identity()
            if grows:
                parts = conv(inputs, outputs, 1), nn.AvgPool2d(2), norm(outputs)
                self.downsample = nn.Sequential(*parts)

        def forward(self, x):
            y = self.pool(self.bn1(self.conv1(x)).relu())
            return (self.bn2(self.conv2(y)) + self.downsample(x)).relu()

    size, pool = {"small": (3, 1), "mid": (3, 2), "large": (7, 4)}[stem]
    first = [("conv1", conv(3, width, size, padding=size // 2)), ("bn1", norm(width))]
    first += [("relu", nn.ReLU()), ("pool", nn.AvgPool2d(pool))]
    layers = [("layer0", nn.Sequential(OrderedDict(first)))]
    widths = [width, width, 2 * width, 4 * width, 8 * width]
    for stage in range(4):
        block = nn.Sequential(Block(widths[stage], widths[stage + 1]))
        layers.append((f"layer{stage + 1}", block))
    layers += [("avgpool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())]
    layers.append(("fc", nn.Linear(8 * width, classes)))
    return nn.Sequential(OrderedDict(layers))


def vgg11(norm, head, size):
    """torchvision's layers at width 4, with its head or the condensation field's."""
    from torch import nn
    from torchvision.models import vgg

    channels = [n if n == "M" else n // 16 for n in vgg.cfgs["A"]]
    features = vgg.make_layers(channels, batch_norm=norm != "none")
    network = vgg.VGG(features, CLASSES, init_weights=False)
    if norm == "instance":
        for index, module in enumerate(features):
            if isinstance(module, nn.BatchNorm2d):
                features[index] = group_norm(module.num_features)
    if head == "linear":
        if size[0] < 32:
            features[0].padding = (3, 3)
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.classifier = nn.Linear(32, CLASSES)
    else:
        network.classifier[0] = nn.Linear(32 * 49, 256)
        network.classifier[3] = nn.Linear(256, 256)
        network.classifier[6] = nn.Linear(256, CLASSES)
    return network


def mobilenet(small):
    from torchvision.models import MobileNetV2

    stages = [(1, 16, 1, 1), (6, 24, 1, 2), (6, 32, 1, 2), (6, 64, 2, 2)]
    stages += [(6, 96, 1, 1), (6, 160, 1, 2), (6, 320, 1, 1)]
    if small:
        stages[1] = (6, 24, 1, 1)
    network = MobileNetV2(CLASSES, 0.25, stages)
    if small:
        network.features[0][0].stride = (1, 1)
    return network


def efficientnet(small):
    from torchvision.models import efficientnet

    settings, last = efficientnet._efficientnet_conf(
        "efficientnet_b0", width_mult=0.25, depth_mult=0.3
    )
    network = efficientnet.EfficientNet(
        settings, 0.2, num_classes=CLASSES, last_channel=last
    )
    if small:
        network.features[0][0].stride = (1, 1)
    return network


if __name__ == "__main__":
    main()
