"""The machine that is measured on: its CPU, and the memory of a process."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import subprocess


def describe() -> dict[str, str | int]:
    """Names the CPU, the number of cores, and the versions of what is compared."""
    packages = ("tensorflow", "keras", "numpy")
    return {
        "cpu": cpu(),
        "cores": cores(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def cpu() -> str:
    """Returns the name of the CPU's model, as far as the system tells it."""
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        names = [s for s in info.read_text().splitlines() if s.startswith("model name")]
        return names[0].split(":")[1].strip() if names else platform.processor()
    if platform.system() == "Darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string")
    return platform.processor()


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resident_mebibytes(pid: int) -> float:
    """Returns the resident memory of a process, in MiB."""
    status = pathlib.Path(f"/proc/{pid}/statm")
    if status.exists():
        pages = int(status.read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resident_by_ps(pid)


def resident_by_ps(pid: int) -> float:
    """Returns the same in MiB where there is no /proc, as on macOS."""
    return int(_output("ps", "-o", "rss=", "-p", str(pid))) / 1024


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()
