"""ddjax: dataset distillation in JAX.

In the order of the pipeline: `data`, `models`, `squeeze`, `stats` (with `ot`),
`recover` (with `methods` and `losses`), `relabel`, `student`, `report`, `export`.
"""

from ddjax.export import load_distilled, save_distilled

__all__ = ["load_distilled", "save_distilled"]

__version__ = "0.1.0"
