"""Writes fixtures/autoencoder.npz: what Diffusers' AutoencoderKL computes, in float64.

Run `python tests/models/make_autoencoder_fixtures.py` with torch and diffusers
installed. The names and shapes of the published network's 248 tensors, and results and
gradients of small ones. Weights and images are not stored: `draw` makes them from
their names, here and in autoencoder_test.py. With the argument "full" it writes
fixtures/autoencoder_full.npz instead, of the published size, which is not kept in the repository.
"""

import math
import pathlib
import sys
import zlib

import numpy as np
import torch
from diffusers import AutoencoderKL

FOLDER = pathlib.Path(__file__).parent / "fixtures"
# Widths, blocks, channels of latents and images, groups; and the images' sides.
CASES = {
    "three": ((32, 64, 64), 1, 4, 3, 32, (16, 24)),
    "two": ((8, 12), 1, 2, 1, 4, (10, 6)),
}
FULL = {"full": ((128, 256, 512, 512), 2, 4, 3, 32, (32, 64))}


def main():
    if sys.argv[1:] == ["full"]:
        full = results("full", *FULL["full"])
        np.savez_compressed(FOLDER / "autoencoder_full.npz", **full)
        return
    tensors = network(*FULL["full"][:-1]).state_dict()
    rows = [f"{name} {' '.join(map(str, t.shape))}" for name, t in tensors.items()]
    made = {"published": np.array(rows)}
    for name, case in CASES.items():
        made |= results(name, *case)
    np.savez_compressed(FOLDER / "autoencoder.npz", **made)


def network(widths, blocks, channels, image_channels, groups):
    return AutoencoderKL(
        in_channels=image_channels,
        out_channels=image_channels,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=blocks,
        latent_channels=channels,
        norm_num_groups=groups,
    )


def results(case, *options):
    *options, (height, width) = options
    autoencoder = network(*options).double().eval()
    state = autoencoder.state_dict()
    drawn = {name: torch.tensor(draw(name, t.shape)) for name, t in state.items()}
    autoencoder.load_state_dict(drawn)
    widths, _, channels, image_channels, _ = options
    factor = 2 ** (len(widths) - 1)
    images = image(f"{case} images", (2, height, width, image_channels))
    z = image(f"{case} z", (2, height // factor, width // factor, channels))
    moments = autoencoder.encode(images).latent_dist.parameters
    made = autoencoder.decode(z).sample
    gradients = {}
    for name, out, given in (("moments", moments, images), ("images", made, z)):
        cotangent = torch.tensor(draw(f"{case} {name} cotangent", last(out).shape))
        (gradient,) = torch.autograd.grad((last(out) * cotangent).sum(), given)
        gradients[f"{case}/{name} gradient"] = last(gradient)
    # The log variance is clipped by the distribution, not in `parameters`.
    mean, logvar = last(moments).chunk(2, -1)
    made = {f"{case}/mean": mean, f"{case}/images": last(made)} | gradients
    made[f"{case}/logvar"] = logvar.clamp(-30, 20)
    return {k: v.detach().numpy().astype(np.float32) for k, v in made.items()}


def image(name, shape):
    return torch.tensor(draw(name, shape)).permute(0, 3, 1, 2).requires_grad_()


def last(x):
    return x.permute(0, 2, 3, 1)


def draw(name, shape):
    """Random numbers that depend on the name alone."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("bias"):
        return 0.3 * values
    if name.endswith("weight") and len(shape) == 1:
        return 1 + 0.3 * values
    if name.endswith("weight"):
        return values / math.sqrt(np.prod(shape[1:]))
    return values


if __name__ == "__main__":
    main()
