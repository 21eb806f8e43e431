"""The machine that something was measured on."""

import contextlib
import os
import platform
from pathlib import Path


def cores():
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def machine():
    """Processor, cores, memory and system."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), cpu)
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "cpu": cpu,
        "cores": len(cores()),
        "memory_gib": pages * os.sysconf("SC_PAGE_SIZE") / 2**30 if pages else 0,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
