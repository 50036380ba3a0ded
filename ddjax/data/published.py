"""Sizes of well-known sets, for planning before they are there."""

from typing import NamedTuple

__all__ = ["SIZES", "Size"]


class Size(NamedTuple):
    """What is published of a set."""

    classes: int
    train: int  # images
    test: int  # images of the split that is scored
    shape: tuple[int | None, int | None, int]  # (H, W, ch); None where they differ
    stored: tuple[int, int] = ()  # mean (H, W) of its files, where they differ


SIZES = {
    "mnist": Size(10, 60_000, 10_000, (28, 28, 1)),
    "fashion_mnist": Size(10, 60_000, 10_000, (28, 28, 1)),
    "cifar10": Size(10, 50_000, 10_000, (32, 32, 3)),
    "cifar100": Size(100, 50_000, 10_000, (32, 32, 3)),
    "svhn_cropped": Size(10, 73_257, 26_032, (32, 32, 3)),
    "imagenette": Size(10, 9_469, 3_925, (None, None, 3), (387, 469)),
    "imagenet2012": Size(1_000, 1_281_167, 50_000, (None, None, 3), (387, 469)),
    # The winter 2021 release as T. Ridnik et al. processed it: "ImageNet-21K
    # Pretraining for the Masses", 2021, https://arxiv.org/abs/2104.10972.
    "imagenet21k_p": Size(10_450, 11_060_223, 522_500, (224, 224, 3)),
}
