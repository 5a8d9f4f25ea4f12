"""Whether this machine can run evbiodist, and which optional parts are there, with the command that installs what is not."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

#: What optional packages are for: (package, extra, purpose).
_OPTIONAL = (
    ("napari", "napari", "the viewer plugin"), ("PySide6-Essentials", "all", "a window for the viewer"),
    ("pyqtgraph", "napari", "curves in the viewer"), ("duckdb", "library", "the library of studies"),
    ("distributed", "cluster", "scans on a dask cluster"), ("emcee", "bayes", "posterior draws"),
    ("numba", "montecarlo", "photon tracing and compiled maps"), ("pyarrow", "export", "Parquet"),
    ("pyreadstat", "export", "SAS transport files (SEND)"), ("xlsxwriter", "export", "Excel workbooks"),
)  # fmt: skip
_LEAST_DISK, _LEAST_MEMORY = 1 << 30, 2 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was found, whether it is fine, and what to do where it is not."""

    name: str
    value: str
    words: str
    fine: bool = True
    indented: bool = True


def examine() -> list[Finding]:
    """Return everything that was looked at, needed things first.

    Examples
    --------
    >>> [f.name for f in examine()][:2]
    ['evbiodist', 'numpy']
    """
    head = f"evbiodist {version('evbiodist')}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return [
        Finding("evbiodist", version("evbiodist"), head, indented=False),
        *_needed(),
        *_optional(),
        *_machine(),
        *_works(),
    ]


def _needed() -> list[Finding]:
    """Return the packages that evbiodist cannot do without, those of lasting interest first."""
    first = ("numpy", "scipy", "pandas", "scikit-image", "tifffile", "lmfit", "zarr")
    asked = [r for r in requires("evbiodist") or () if "extra ==" not in r]
    names = {m.group() for r in asked if (m := re.match(r"[A-Za-z0-9_.-]+", r))}
    return [_package(name, "", "") for name in (*first, *sorted(names - set(first)))]


def _optional() -> list[Finding]:
    return [_package(*entry) for entry in _OPTIONAL]


def _package(name: str, extra: str, purpose: str) -> Finding:
    try:
        return Finding(name, version(name), purpose)
    except PackageNotFoundError:
        remedy = f"pip install 'evbiodist[{extra}]'" if extra else "pip install --force-reinstall evbiodist"
        return Finding(name, "missing", f"{purpose}: {remedy}" if purpose else remedy, fine=bool(extra))


def _machine() -> list[Finding]:
    """Return cores, memory, disk, the folder for temporary files, and what the viewer needs."""
    found = [Finding("cores", str(os.cpu_count() or 1), "use --workers with up to as many")]
    memory = _memory()
    if memory:
        low = "" if memory > _LEAST_MEMORY else "little: run with --workers 1"
        found.append(Finding("memory", f"{memory / 2**30:.0f} GiB", low))
    free = shutil.disk_usage(Path.cwd()).free
    found.append(
        Finding("disk", f"{free / 2**30:.0f} GiB free", "" if free > _LEAST_DISK else "little: make room before a run")
    )
    threads = os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "own choice"
    found.append(Finding("BLAS threads", threads, "runs hold them at one a worker"))
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"x")
        found.append(Finding("temporary files", "writable", tempfile.gettempdir()))
    except OSError as err:
        found.append(
            Finding("temporary files", "not writable", f"{err.strerror}: set TMPDIR to a folder with room", fine=False)
        )
    if sys.platform.startswith("linux"):
        display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or ""
        found.append(
            Finding(
                "display",
                display or "none",
                "" if display else "the viewer needs one; xvfb-run gives one without a screen",
            )
        )
    return found


def _memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 0


def _works() -> list[Finding]:
    """Return whether an image is decoded in a process of its own, and a curve analysed."""
    found = []
    try:
        import numpy as np
        import tifffile

        from evbiodist.io.registry import read_scan
        from evbiodist.kinetics.nca.nca import nca

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "check.tif"
            tifffile.imwrite(path, np.arange(64, dtype=np.uint16).reshape(8, 8))
            fine = int(np.asarray(read_scan(path).counts).sum()) == 2016
        fine = fine and abs(nca([0, 1, 2], [4.0, 2.0, 1.0], method="log")["half_life"].value - 1) < 1e-9
        found.append(
            Finding("self-check", "passed" if fine else "failed", "an image was decoded, a curve analysed", fine=fine)
        )
    except Exception as err:
        found.append(
            Finding(
                "self-check",
                "failed",
                f"{type(err).__name__}: {err}; pip install --force-reinstall evbiodist",
                fine=False,
            )
        )
    return found
