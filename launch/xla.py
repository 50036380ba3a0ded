"""XLA's flags: what commands choose of the compiler before it starts.

On a CPU, XLA leaves products and convolutions to YNNPACK where it can, or to Eigen. For
the gradients of small networks Eigen is faster: by a fifth, for the parameters of a
ConvNet-3 at 32 pixels (`python -m benchmarks.convolution`, and the same after
`export XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=$D,$C,$R`, XLA's own choice, with
D, C and R for LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT, LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION
and LIBRARY_FUSION_TYPE_REDUCE). So YNNPACK keeps the sums alone.
"""

import importlib.metadata
import importlib.util
import mmap
import os
import pathlib

__all__ = ["environment", "knows"]

_FLAG = "xla_cpu_experimental_ynn_fusion_type"
_VALUE = "LIBRARY_FUSION_TYPE_REDUCE"


def environment() -> dict[str, str]:
    """What has to be in the environment before XLA starts: nothing it may not know.

    XLA ends a process that has a flag it does not know. So nothing is added where JAX's
    own library does not have the flag, or where an accelerator's, which reads the flags
    too, is installed; nor where XLA_FLAGS speaks of it already.
    """
    told = os.environ.get("XLA_FLAGS", "")
    if _FLAG in told or _has_accelerator() or not knows(_FLAG):
        return {}
    return {"XLA_FLAGS": f"{told} --{_FLAG}={_VALUE}".strip()}


def knows(flag: str) -> bool:
    """Whether JAX's library has the name of a flag in it."""
    found = importlib.util.find_spec("jaxlib")
    [folder] = found.submodule_search_locations if found else [""]
    for path in pathlib.Path(folder).glob("libjax_common.*"):
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            return content.find(flag.encode()) >= 0
    return False


def _has_accelerator():
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    found = (importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    return bool(plugins) or any(found)
