"""The machine that a plan is for: this one, or one that is told by flags.

    python -m launch.evaluate --config=configs/wmdd_imagenet1k.py --dry_run \
        --devices=8,256 --tflops=13.5 --device_memory_gb=24

What is not told is as it is here.
"""

import os
from typing import NamedTuple

from absl import flags

from ddjax import parallel

_DEFINED = {
    "devices": flags.DEFINE_list(
        "devices",
        [],
        "With --dry_run: how many devices a pod has in all; several numbers compare.",
    ),
    "devices_per_host": flags.DEFINE_integer(
        "devices_per_host", None, "With --dry_run: of a pod's hosts; 8, or all if few."
    ),
    "tflops": flags.DEFINE_float(
        "tflops",
        None,
        "With --dry_run: 1e12 operations a second that a device sustains, which is a "
        "fraction of its peak; the rate of this machine by default.",
    ),
    "device_memory_gb": flags.DEFINE_float(
        "device_memory_gb", None, "With --dry_run: 1e9 bytes of a device."
    ),
    "cores_per_host": flags.DEFINE_integer(
        "cores_per_host", None, "With --dry_run: processor cores that decode images."
    ),
    "host_memory_gb": flags.DEFINE_float(
        "host_memory_gb", None, "With --dry_run: 1e9 bytes of a host."
    ),
}
FLAGS = tuple(_DEFINED)
_PER_HOST = 8


class Machine(NamedTuple):
    """Devices, in hosts of equally many."""

    devices: int  # in all
    per_host: int
    rate: float  # operations a second of one device
    memory: int  # bytes of one device
    cores: int  # of one host
    host_memory: int  # bytes of one host
    side_by_side: bool  # whether a device trains several students at a time
    threads: int  # that make a call, or train a student, each at a time

    @property
    def hosts(self) -> int:
        return self.devices // self.per_host


def told() -> dict:
    """The flags that were given, by name.

    Raises:
      ValueError: a flag's value makes no sense.
    """
    found = {name: flag.value for name, flag in _DEFINED.items()}
    found = {name: value for name, value in found.items() if value not in (None, [])}
    if "devices" in found:
        try:
            found["devices"] = [int(count) for count in found["devices"]]
        except ValueError as error:
            raise ValueError(
                f"--devices={','.join(found['devices'])} must be whole numbers with "
                "commas between them, such as --devices=8,256."
            ) from error
    return found


def refuse() -> None:
    """ValueError if a flag of the dry run was given without it."""
    for name in told():
        raise ValueError(f"--{name} is only of --dry_run; add that, or leave it out.")


def here(rate: float) -> Machine:
    """This machine, whose devices have been measured.

    Args:
      rate: operations a second of one device.
    """
    count = parallel.device_count()
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    several = not parallel.is_cpu()
    limit, threads = parallel.memory_limit(), parallel.threads()
    return Machine(count, count, rate, limit, os.cpu_count(), host, several, threads)


def machines(told: dict, rate: float) -> list[Machine]:
    """The machines to plan for: one for each number of devices, or this one.

    Args:
      told: some of the flags, by name.
      rate: operations a second of one device here.

    Raises:
      ValueError: numbers below 1, or a number of devices that is not of whole hosts.
    """
    for name, value in told.items():
        if min(value) <= 0 if name == "devices" else value <= 0:
            raise ValueError(f"--{name} must be above 0; got {value}.")
    base, giga = here(rate), 10**9
    base = base._replace(
        rate=told.get("tflops", rate / 1e12) * 1e12,
        memory=int(told.get("device_memory_gb", base.memory / giga) * giga),
        cores=told.get("cores_per_host", base.cores),
        host_memory=int(told.get("host_memory_gb", base.host_memory / giga) * giga),
    )
    if "devices" not in told:
        if "devices_per_host" in told:
            raise ValueError("--devices_per_host needs --devices, how many in all.")
        return [base]
    found = []
    for count in told["devices"]:
        per_host = told.get("devices_per_host", min(_PER_HOST, count))
        if count % per_host:
            raise ValueError(
                f"--devices={count} are not of whole hosts with {per_host} each; set "
                "--devices_per_host to a divisor."
            )
        found.append(
            base._replace(
                devices=count, per_host=per_host, side_by_side=True, threads=1
            )
        )
    return found
