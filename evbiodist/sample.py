"""Where the sample studies lie: inside an installed package, beside it in a source checkout."""

from __future__ import annotations

import shutil
from pathlib import Path

DEMO = "demo"


def sample_data() -> Path:
    """Return the folder of the sample studies.

    Raises
    ------
    FileNotFoundError : an installation without them.

    Examples
    --------
    >>> (sample_data() / "demo" / "study.toml").is_file()
    True
    """
    here = Path(__file__).parent
    for folder in (here / "sample_data", here.parent / "sample_data"):
        if (folder / DEMO / "study.toml").is_file():
            return folder
    raise FileNotFoundError(
        "the sample studies are not installed; install evbiodist again from its wheel or a checkout"
    )


def copy_sample(name: str, target: Path) -> Path:
    """Copy a sample study to a folder of the user's and return it.

    Raises
    ------
    ValueError : another study lies there already.
    """
    there = target / "study.toml"
    if target.exists() and (not target.is_dir() or (there.exists() and there.read_bytes() != (sample_data() / name / "study.toml")
                                                    .read_bytes())):  # fmt: skip
        raise ValueError(f"'{target}' holds something else already; choose another folder")
    target.mkdir(parents=True, exist_ok=True)
    shutil.copytree(sample_data() / name, target, dirs_exist_ok=True)
    return target
