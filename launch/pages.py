"""Large pages of memory: a command on Linux asks for them before it allocates any.

XLA takes the memory of each step afresh. In pages of 4 KB that is a fault of the
processor for each, a good part of a small network's step on a CPU (run
`benchmarks.convolution` with GLIBC_TUNABLES=glibc.malloc.hugetlb=0, and without); in
pages of 2 MB there is almost none. glibc asks the kernel for those where an
environment variable says so when the process begins, which then is too late: the
process begins anew, with the same number and the same arguments.
"""

import os
import pathlib
import sys

__all__ = ["begin_anew", "environment"]

_TUNABLE = "glibc.malloc.hugetlb"
_SINCE = (2, 35)  # of glibc
_KERNEL = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def begin_anew() -> None:
    """Begins `python -m launch...` anew with large pages, where it has none.

    To be called while Python looks for the module that it is to run.
    """
    wanted = environment()
    if sys.executable and wanted:
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **wanted})


def environment() -> dict[str, str]:
    """What is to be added to the environment: nothing where it would change nothing.

    That is without Linux or glibc 2.35, where the kernel has none or gives them anyway,
    and where GLIBC_TUNABLES has a word on it (glibc.malloc.hugetlb=0 keeps the small
    ones).
    """
    told = os.environ.get("GLIBC_TUNABLES", "")
    if _TUNABLE in told or not _asks_for_them():
        return {}
    return {"GLIBC_TUNABLES": ":".join(filter(None, [told, f"{_TUNABLE}=1"]))}


def _asks_for_them() -> bool:
    """Whether the kernel gives large pages to those who ask, and the C library can."""
    try:
        _, version = os.confstr("CS_GNU_LIBC_VERSION").split()
        numbers = tuple(int(number) for number in version.split(".")[:2])
        return numbers >= _SINCE and "[madvise]" in _KERNEL.read_text()
    except (AttributeError, OSError, ValueError):  # no glibc, or no such file
        return False
