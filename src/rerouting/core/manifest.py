"""Where a run's results came from: versions, hardware, source revision, and what each stage took."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rerouting.core.allocator import give_back_freed_memory
from rerouting.core.conversion import plain
from rerouting.core.files import atomic_write, sha256_file
from rerouting.core.finder import PACKAGE

MIB = 2**20
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def environment() -> dict[str, Any]:
    """Python, system, processor, threads, memory (GiB), GPUs, package versions, and the source's revision and hash."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        **_arithmetic(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": _gpus(),
        "packages": _versions(),
        "source": source_revision(PACKAGE.parents[1]),
        "code": code_digest(PACKAGE),
    }


def code_digest(package: Path) -> str:
    """SHA-256 over a package's Python files, names and contents: the code that ran, with or without a checkout."""
    found = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        found.update(f"{file.relative_to(package)}\n{sha256_file(file)}\n".encode())
    return found.hexdigest()


def source_revision(folder: Path) -> dict[str, Any] | None:
    """Git revision of a checkout, and whether src differs from it; None without checkout or git."""
    if not (folder / ".git").exists():
        return None
    try:
        revision = _git(folder, "rev-parse", "HEAD")
        return {"revision": revision, "changed": bool(_git(folder, "status", "--porcelain", "--", "src"))}
    except (OSError, subprocess.SubprocessError):
        return None


def write_manifest(path: Path, **parts: Any) -> None:
    """Write the parts as one JSON file, atomically."""
    atomic_write(path, json.dumps(plain(parts), indent=2, ensure_ascii=False) + "\n")


class Stages:
    """Wall time and peak memory of each named stage; a stage that goes on in a later process adds up.

    Args:
        saved: `as_dict()` of the process before, from the manifest of the run that is resumed.
    """

    def __init__(self, saved: Mapping[str, Mapping[str, float]] | None = None) -> None:
        self._stages = {name: dict(values) for name, values in (saved or {}).items()}
        self._inside: str | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block, also when it fails. Stages do not nest: one peak is kept at a time."""
        assert self._inside is None, f"stage {name} inside stage {self._inside}"
        self._inside = name
        _reset_peaks()
        began = time.perf_counter()
        try:
            yield
        finally:
            self._inside = None
            known = self._stages.setdefault(name, {"seconds": 0.0})
            known["seconds"] = round(known["seconds"] + time.perf_counter() - began, 3)
            for key, value in _peaks().items():
                known[key] = max(known.get(key, 0.0), value)

    def as_dict(self) -> dict[str, dict[str, float]]:
        """For the manifest: seconds, peak_memory_mib and, with a GPU, peak_gpu_mib of each stage."""
        return {name: dict(values) for name, values in self._stages.items()}


def peak_memory_mib() -> float:
    """Peak memory since the stage began: of the GPUs where one is in use, else of this process."""
    peaks = _peaks()
    return peaks.get("peak_gpu_mib") or peaks["peak_memory_mib"]


def _reset_peaks() -> None:
    give_back_freed_memory()  # else what an earlier stage freed would count
    with suppress(OSError):  # not Linux, or not allowed: the peak is then the process's, not the stage's
        CLEAR_REFS.write_text("5")
    if cuda := _cuda():
        for device in range(cuda.device_count()):
            cuda.reset_peak_memory_stats(device)


def _peaks() -> dict[str, float]:
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
    except OSError:
        found = None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    peaks = {"peak_memory_mib": round((int(found[1]) * 1024 if found else used) / MIB, 1)}
    if cuda := _cuda():
        total = sum(cuda.max_memory_allocated(device) for device in range(cuda.device_count()))
        peaks["peak_gpu_mib"] = round(total / MIB, 1)
    return peaks


def _cuda() -> Any:
    """torch.cuda where this process uses it, else None; torch is not imported for it."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None


def _arithmetic() -> dict[str, Any]:
    """What the last bits of a sum on this processor depend on: its instructions, and how many threads share it."""
    try:
        import torch
    except ImportError:
        return {}
    tiles = bool(torch.cpu._is_amx_tile_supported())
    return {
        "instructions": torch.backends.cpu.get_cpu_capability() + (" AMX" if tiles else ""),
        "threads": torch.get_num_threads(),
    }


def _gpus() -> list[dict[str, Any]]:
    try:
        import torch
    except ImportError:
        return []
    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(device) for device in range(torch.cuda.device_count())]
    driver = Path("/proc/driver/nvidia/version")
    line = driver.read_text().partition("\n")[0] if driver.exists() else ""
    version = re.search(r"\b\d+\.\d+(\.\d+)?\b", line)
    return [
        {
            "name": gpu.name,
            "memory_gib": round(gpu.total_memory / 2**30, 1),
            "driver": version[0] if version else None,
            "cuda": torch.version.cuda,
        }
        for gpu in found
    ]


def _versions() -> dict[str, str]:
    """Installed versions of rerouting and of what it declares, extras included."""
    try:
        wanted = ["rerouting", *(importlib.metadata.requires("rerouting") or [])]
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = {}
    for requirement in wanted:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str:
    ran = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
    )
    return ran.stdout.strip()
