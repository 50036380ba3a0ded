"""Writes fixtures/*.pt: small sets as DC and MTT save them, by torch itself.

Run `python tests/export/make_public_fixtures.py` with torch installed. What they hold
is in fixtures/public.npz, as [N, ch, H, W].
"""

import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "fixtures"
MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)


def main():
    import torch

    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (2, 6, 3, 4, 4), dtype=np.uint8)
    mean, std = (np.array(x, np.float32)[:, None, None] for x in (MEAN, STD))
    images = torch.tensor((pixels / np.float32(255) - mean) / std)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    # As DC: a set a run, and the accuracies of all, some of them NumPy's numbers.
    saved = {
        "data": [[own.clone(), labels.clone()] for own in images],
        "accs_all_exps": {"ConvNet": [np.float64(0.25), 0.5]},
    }
    for name, zipped in (("dc", True), ("dc_stream", False)):
        path = FOLDER / f"{name}.pt"
        torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    # As MTT: labels in a file of their own; the images were learned.
    torch.save(images[0].clone().requires_grad_(), FOLDER / "images_best.pt")
    torch.save(labels[torch.tensor([5, 0, 2, 1, 4, 3])], FOLDER / "labels_best.pt")
    train = random.integers(0, 256, (60, 3, 4, 4), dtype=np.uint8)
    x = (train / 255 - mean) / std
    torch.save(torch.tensor(whitened(x)[:6]).float(), FOLDER / "whitened.pt")
    np.savez_compressed(FOLDER / "public.npz", pixels=pixels, train=train)


def whitened(x, regularisation=0.1):
    """As kornia has it, of [N, ch, H, W]."""
    flat = x.reshape(len(x), -1)
    centred = flat - flat.mean(0)
    u, s, _ = np.linalg.svd(centred.T @ centred / (len(x) - 1))
    return (centred @ (u / np.sqrt(s + regularisation)) @ u.T).reshape(x.shape)


if __name__ == "__main__":
    main()
