"""Writes a distilled set for use elsewhere, with a card and a picture.

    python -m launch.export --set=runs/default/recover/wmdd-noise-ipc10-seed0-0123456789ab \
        --to=parquet --out=shared/digits

`folder` is PNGs by class, `npz` one file for NumPy, `tfds` for tensorflow-datasets, and
`parquet` lies as Hugging Face's hub has it. Each is read back by
`ddjax.load_distilled(PATH)`, exactly.
"""

from absl import flags

from ddjax import export
from launch import command

_FLAGS = (
    (
        flags.DEFINE_string,
        "set",
        "",
        "The distilled set: a run's recover folder, or an exported one.",
    ),
    (flags.DEFINE_string, "out", "", "The new folder."),
    (flags.DEFINE_enum, "to", "npz", export.FORMS, "The form to write."),
)


def main(set: str, out: str, to: str) -> None:
    """Writes one set and says what is in it."""
    for name, value in (("set", set), ("out", out)):
        if not value:
            raise ValueError(f"no --{name} given; see --help.")
    stored = export.load_distilled(set, decode=False)  # in the bytes it was made for
    print("\n".join(summary(stored, export.save_distilled(stored, out, to))))


def summary(stored: export.StoredSet, folder) -> list[str]:
    """What a set holds, in lines.

    Args:
      stored: the set.
      folder: it was written to.
    """
    info, count = stored.info, len(stored.images)
    each = f"{stored.ipc} per class" if stored.ipc else "classes of several sizes"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    soft = "with soft labels" if len(stored.soft_labels) else "hard labels"
    return [
        f"{info.name} lies in {folder}",
        f"  images   {count:,} of {'x'.join(map(str, info.shape))}, {each}, {soft}",
        f"  classes  {info.num_classes}, the first {info.classes[0]}",
        f"  bytes    {size / 2**20:,.2f} MiB",
        f"Read it with ddjax.load_distilled({str(folder)!r}); README.md says more.",
    ]


if __name__ == "__main__":
    command.main_with(_FLAGS, main, stopped="Nothing is left of the unfinished set.")
