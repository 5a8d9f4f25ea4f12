"""Make sample_data/demo from the digital mouse, and the checksums of everything in sample_data.

python sample_data/make_demo.py            write
python sample_data/make_demo.py --check    say whether what lies here is what the script makes
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SEED = 2015


def checksums(folder: Path) -> str:
    """Return SHA-256 and name of every file but this script and the list itself."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in {"SHA256SUMS", "make_demo.py"}
                   and p.suffix != ".pyc")  # fmt: skip
    return "".join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n" for p in files)


def main() -> int:
    """Write the demo study, or compare it with a fresh one."""
    from evbiodist.phantom.study import write_study

    if "--check" in sys.argv:
        with tempfile.TemporaryDirectory() as fresh:
            write_study(Path(fresh), SEED)
            same = checksums(Path(fresh)) == checksums(HERE / "demo")
        listed = (HERE / "SHA256SUMS").read_text() == checksums(HERE)
        print("as made" if same and listed else "differs from what the script makes")
        return 0 if same and listed else 1
    write_study(HERE / "demo", SEED)
    (HERE / "SHA256SUMS").write_text(checksums(HERE))
    return 0


if __name__ == "__main__":
    sys.exit(main())
