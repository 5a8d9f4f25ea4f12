"""Read damaged files by the hundred thousand and write docs/fuzz.md: nothing may hang, crash, escape or eat memory.

python benchmarks/fuzz_readers.py [--cases 100000] [--seed 1] [--first 0] [--table docs/fuzz.md [--append]] [--cases-to FILE]
python benchmarks/fuzz_readers.py --seed 1 --write 4711 FOLDER     (writes that damaged file out and says what became of it)
"""

import argparse
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from fuzz_cases import Outcome, case, samples, try_cases, written

from evbiodist.batch.child import Child, ChildDiedError, ChildLateError, Limits

LIMITS = Limits(memory_bytes=2 << 30, seconds=20.0)
_BATCH = 50
_IMPORTS = ("fuzz_cases", "evbiodist.io.registry", "evbiodist.study.load", "imagecodecs", "zarr", "nibabel", "pydicom")
_COLUMNS = ("read", "refused", "last net", "escaped", "memory", "died", "late")
#: A path of this machine in a library's words.
_PLACE = re.compile(r"/[^\s']*")
_LIBRARIES = ("numpy", "tifffile", "imagecodecs", "zarr", "nibabel", "pydicom", "pydantic", "defusedxml")


def outcomes(seed: int, numbers, child: Child, tmp: str):
    """Yield the outcome of each case; one that ends its process is tried once more, alone."""
    waiting = list(numbers)
    while waiting:
        told: list[Outcome] = []
        batch = waiting[:_BATCH]
        try:
            child.call(try_cases, seed, batch, tmp, tell=told.append)
        except ChildDiedError:
            print(f"case {batch[len(told)]} ended its process; once more, alone", file=sys.stderr, flush=True)
            told.append(_alone(seed, batch[len(told)], child, tmp))
            shutil.rmtree(tmp, ignore_errors=True)
            Path(tmp).mkdir()
        yield from told
        waiting = waiting[len(told) :]


def _alone(seed: int, number: int, child: Child, tmp: str) -> Outcome:
    told: list[Outcome] = []
    begin = time.perf_counter()
    try:
        child.call(try_cases, seed, [number], tmp, tell=told.append)
    except ChildLateError:
        return Outcome(number, "late", "", time.perf_counter() - begin, 0.0)
    except ChildDiedError:
        return Outcome(number, "died", "", time.perf_counter() - begin, 0.0)
    return told[0]


PAGE = """# Damaged files through every reader

Made by `benchmarks/fuzz_readers.py`, one run a section below.

{samples} small valid files of every format that evbiodist reads are damaged by flipped bits, cuts, blocks of zeros or noise,
doubled and moved blocks, odd integers at aligned places, blocks of other files, lost, emptied and swapped files of a folder, and,
where they are text, by odd numbers, odd words, lost and swapped lines, long runs and a DOCTYPE; two in five by several of these.
Each is read in a child process with {memory} GiB of memory and {seconds:g} s: pixels are decoded in blocks, as a run does, and
described, as `evbiodist info` does; a study is loaded with its tables. A number names a case: `--seed SEED --write NUMBER FOLDER`
writes it out.

- **read**: taken as a valid file (a flipped bit in a pixel is one).
- **refused**: `UnreadableImage` or `InputError`, a sentence that says what is wrong.
- **last net**: refused too, but only by the registry, which catches what a reader did not expect.
- **escaped**: any other exception. **memory**: more was asked for than a process may use. **died**: the child process crashed.
  **late**: it took longer than it may. None of these should be; the child process contains the last three.
- **zeros**: read without a warning, with planes that are mostly zeros, from a file without zeros and by a damage that writes none.
- **warned**: a library warned and the reader did not make words of it.

Cases that are named below were mended after their run, but for those of which a decoder is the cause.
"""
RUN = """
## {cases:,} files, seed {seed}

{when} UTC, {minutes:.0f} minutes on one core. {versions}

{rows}

{odd}
"""


def page() -> str:
    """Return the head of docs/fuzz.md."""
    return PAGE.format(samples=len(samples()), memory=LIMITS.memory_bytes >> 30, seconds=LIMITS.seconds)


def section(done: dict[str, list[Outcome]], seed: int, took: float) -> str:
    """Return what docs/fuzz.md says of one run."""
    every = [o for found in done.values() for o in found]
    rows = [
        f"| format | files | {' | '.join(_COLUMNS)} | zeros | warned | slowest (s) | peak (MB) |",
        "|---|" + "---:|" * (len(_COLUMNS) + 5),
        *(_row(name, found) for name, found in done.items()),
        _row("**all**", every),
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    return RUN.format(
        cases=len(every), seed=seed, when=f"{datetime.now(UTC):%Y-%m-%d %H:%M}", minutes=took / 60, rows="\n".join(rows),
        versions=f"Python {platform.python_version()}, {versions}; {platform.system()}.", odd="\n".join(_odd(every)),
    )  # fmt: skip


def _odd(every: list[Outcome]) -> list[str]:
    """Name the cases that should not be, and count the zeros by sample."""

    def of(found: Outcome) -> str:
        sample = samples()[found.number % len(samples())]
        return f"{sample.format}, {sample.name}"

    bad = [o for o in every if o.outcome in {"last net", "escaped", "memory", "died", "late"}]
    lines = [f"- {o.outcome}: case {o.number} ({of(o)}) {_PLACE.sub('...', o.words)[:160]}".rstrip() for o in bad[:60]]
    zeros = Counter(of(o) for o in every if o.silent_zero)
    lines += [f"- zeros: {n} of {sample}" for sample, n in zeros.most_common()]
    if any("jpeg2000" in sample or "jpegxr" in sample for sample in zeros):
        lines.append(
            "\nDecoders of JPEG 2000 and JPEG XR fill in what they cannot follow of a damaged plane and say nothing."
        )
    return lines or ["Nothing escaped, nothing was late, no process died."]


def _row(name: str, found: list[Outcome]) -> str:
    counts = Counter(o.outcome for o in found)
    cells = [f"{len(found):,}", *(f"{counts[c]:,}" for c in _COLUMNS), f"{sum(o.silent_zero for o in found):,}",
             f"{sum(bool(o.warned) for o in found):,}", f"{max((o.seconds for o in found), default=0):.2f}",
             f"{max((o.peak_mb for o in found), default=0):.0f}"]  # fmt: skip
    return f"| {name} | {' | '.join(cells)} |"


def main():
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("--cases", type=int, default=100_000)
    given.add_argument("--first", type=int, default=0)
    given.add_argument("--seed", type=int, default=1)
    given.add_argument("--minutes", type=float, default=600.0, help="end after this time with what there is")
    given.add_argument("--table", type=Path, help="where the table is written")
    given.add_argument("--append", action="store_true", help="add to the table's page instead of writing it anew")
    given.add_argument(
        "--cases-to", type=Path, help="where every case that was not simply read or refused is told, as JSON lines"
    )
    given.add_argument("--write", nargs=2, metavar=("NUMBER", "FOLDER"))
    asked = given.parse_args()
    if asked.write:
        made = case(asked.seed, int(asked.write[0]))
        path = written(made, Path(asked.write[1]))
        print(made.sample.format, made.sample.name, made.kinds, path, sep=" | ")
        return 0
    os.environ["PYTHONWARNINGS"] = "default"
    child = Child(_IMPORTS, LIMITS)
    done: dict[str, list[Outcome]] = {}
    for sample in samples():
        done.setdefault(sample.format, [])
    begin, seen = time.perf_counter(), 0
    odd = asked.cases_to.open("w") if asked.cases_to else None
    with tempfile.TemporaryDirectory() as folder:
        for found in outcomes(asked.seed, range(asked.first, asked.first + asked.cases), child, f"{folder}"):
            sample = samples()[found.number % len(samples())]
            strange = (
                found.outcome not in {"read", "refused"}
                or found.silent_zero
                or found.warned
                or found.seconds > 2
                or found.peak_mb > 200
            )
            if strange and odd:
                print(
                    json.dumps({"format": sample.format, "sample": sample.name, **asdict(found)}), file=odd, flush=True
                )
            done[sample.format].append(replace(found, words=found.words if strange else ""))
            seen += 1
            if seen % 2000 == 0:
                print(f"{seen} in {time.perf_counter() - begin:.0f} s", file=sys.stderr, flush=True)
            if time.perf_counter() - begin > 60 * asked.minutes:
                break
    child.close()
    text = section(done, asked.seed, time.perf_counter() - begin)
    print(text)
    if asked.table:
        before = asked.table.read_text(encoding="utf-8") if asked.append and asked.table.exists() else page()
        asked.table.write_text(before + text, encoding="utf-8")
    return int(any(o.outcome in {"escaped", "died", "late", "memory"} for found in done.values() for o in found))


if __name__ == "__main__":
    sys.exit(main())
