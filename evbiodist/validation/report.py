"""The dated report of a validation: every number beside its source, the machine it ran on, what it proves and what not."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from evbiodist.batch.store import csv_bytes, write_bytes
from evbiodist.validation.checks import AREAS, Check

COLUMNS = ("area", "what", "outside", "ours", "difference", "tolerance", "why", "passed", "source", "reason")
_LIBRARIES = ("numpy", "scipy", "pandas", "scikit-image", "tifffile", "lmfit", "zarr")

PROVES = (
    "The formulas named here, as installed on this machine with these libraries, give the numbers that others printed, within the "
    "tolerance beside each.",
    "The installed files of evbiodist are those with the hash under Machine; another hash is another program.",
)
PROVES_NOT = (
    "That a study was designed, labelled, imaged or sampled well, or that its outlines are right.",
    "That an instrument was calibrated, or that a file says the truth about its exposure, units or times.",
    "That organs inferred through tissue are where they seem: that has no outside number here, only simulated truth "
    "(docs/coverage.md).",
    "That the joint model of labels is the right one for yours: its coverage, and where it fails, stand in "
    "docs/crossval_coverage.md.",
    "Parts that have no number in this list (graphical PET methods and maps, populations, saturable and whole-body models, "
    "unmixing, registration, DICOM, NIfTI and the instruments' own files among them); the tests of the source code hold those.",
    "Anything about other settings or data than those listed. No number here is a claim of clinical fitness or of compliance "
    "with any regulation.",
)


@dataclass(frozen=True)
class Machine:
    """What the numbers were computed with.

    Parameters
    ----------
    date : UTC, to the second; evbiodist : version; files : SHA-256 over all installed files of the package.
    python, system, processor : as Python tells them; cpus : that are there.
    libraries : versions by name; blas : libraries of linear algebra that are loaded.
    """

    date: str
    evbiodist: str
    files: str
    python: str
    system: str
    processor: str
    cpus: int
    libraries: dict[str, str]
    blas: tuple[str, ...]

    @classmethod
    def here(cls) -> Machine:
        """Return what this machine has."""
        from threadpoolctl import threadpool_info

        blas = {f"{i.get('internal_api')} {i.get('version')}" for i in threadpool_info() if i.get("user_api") == "blas"}
        return cls(
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            evbiodist=version("evbiodist"),
            files=installed_files(),
            python=platform.python_version(),
            system=platform.platform(),
            processor=platform.processor() or platform.machine(),
            cpus=os.cpu_count() or 0,
            libraries={name: _version(name) for name in _LIBRARIES},
            blas=tuple(sorted(blas)),
        )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def installed_files() -> str:
    """Return the SHA-256 over the names and bytes of all files of the package, as they lie here."""
    import evbiodist

    root, digest = Path(evbiodist.__file__).parent, hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def rows_of(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """Return checks as rows of a table."""
    return [asdict(c) | {"difference": c.difference, "passed": c.passed} for c in checks]


def write_validation(folder: str | Path, checks: Sequence[Check], machine: Machine) -> tuple[Path, ...]:
    """Write validation_<date>_<time>.html, .csv and .json; the time is UTC, and an earlier report stays.

    Parameters
    ----------
    folder : is made where it is not there.
    checks : of `run_checks`; machine : that they ran on.

    Raises
    ------
    NoRoomError : the folder cannot be written.
    """
    stem = f"validation_{machine.date[:19].replace('T', '_').replace(':', '')}"
    rows = rows_of(checks)
    document = {"machine": asdict(machine), "checks": rows, "left_out": left_out(checks), "proves": PROVES,
                "proves_not": PROVES_NOT}  # fmt: skip
    contents = {
        ".html": render(checks, machine).encode(),
        ".csv": csv_bytes(rows, COLUMNS),
        ".json": (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode(),
    }
    paths = tuple(Path(folder) / f"{stem}{end}" for end in contents)
    for path, data in zip(paths, contents.values(), strict=True):
        write_bytes(path, data)
    return paths


def render(checks: Sequence[Check], machine: Machine) -> str:
    """Return the report as HTML that needs no network and runs no script."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evbiodist.validation", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"digits": _digits}
    areas = list(dict.fromkeys(c.area for c in checks))
    summary = [(name, len(mine), sum(c.passed for c in mine), _worst(mine))
               for name in areas for mine in [[c for c in checks if c.area == name]]]  # fmt: skip
    template = environment.get_template("validation.html.j2")
    return template.render(machine=machine, checks=checks, areas=areas, summary=summary, failed=[c for c in checks if not c.passed],
                           left_out=left_out(checks), proves=PROVES, proves_not=PROVES_NOT)  # fmt: skip


def left_out(checks: Sequence[Check]) -> list[str]:
    """Return the areas that were not checked this time."""
    return [name for name in AREAS if name not in {c.area for c in checks}]


def _worst(checks: Sequence[Check]) -> float | None:
    """Return the largest difference in units of its tolerance."""
    shares = [abs(c.difference) / c.tolerance for c in checks if c.difference is not None and c.tolerance > 0]
    return max(shares, default=None)


def _digits(x: float | None) -> str:
    return "" if x is None else f"{x:.12g}"
