"""Is a result folder what a run wrote, and are its inputs what the run read?"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evbiodist.batch import journal, store
from evbiodist.study.problems import InputError, Problem

_SHARD = re.compile(r"[0-9a-f]{32}\.json")


@dataclass(frozen=True)
class Finding:
    """Something that is not as the run left it.

    Parameters
    ----------
    what : `input`, `output`, `shard` or `journal`.
    name : of the file.
    reason : in words.
    """

    what: str
    name: str
    reason: str

    def as_dict(self) -> dict[str, str]:
        """Return it as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Verified:
    """What was checked and found.

    Parameters
    ----------
    findings : nothing where all is as the run left it.
    checked : number of files whose bytes were compared.
    head : hash of the journal's last line: note it elsewhere, and a journal that was rewritten as a whole shows too.
    """

    findings: tuple[Finding, ...]
    checked: int
    head: str


def verify(folder: str | Path, *, root: str | Path | None = None, head: str | None = None) -> Verified:
    """Compare a result folder with what its run wrote down: inputs, tables, shards and journal.

    Parameters
    ----------
    folder : given to ``--out`` of a run that ended.
    root : folder of the study, where it lies elsewhere now.
    head : hash that the journal ended with when somebody noted it.

    Raises
    ------
    InputError : no result folder, or of a run that did not end.

    Examples
    --------
    >>> import tempfile
    >>> verify(tempfile.mkdtemp())
    Traceback (most recent call last):
    ...
    evbiodist.study.problems.InputError: ...: found 'no provenance.json', expected the result folder of a run that ended; ...
    """
    folder = Path(folder)
    provenance = _provenance(folder)
    findings = [
        f for name, digest in provenance["outputs"].items() if (f := _compare("output", folder / name, name, digest))
    ]
    home, missing = _home(folder, root)
    findings += missing
    if home is not None:
        findings += [f for n, digest in provenance["inputs"].items() if (f := _compare("input", home / n, n, digest))]
    shards = sorted(p for p in (folder / "scans").glob("*.json") if _SHARD.fullmatch(p.name))
    findings += [f for p in shards if (f := _shard(folder, p.stem))]
    findings += _journal(folder, head)
    checked = len(provenance["outputs"]) + len(shards) + (len(provenance["inputs"]) if home else 0)
    return Verified(tuple(findings), checked, journal.head(folder))


def _provenance(folder: Path) -> dict[str, Any]:
    path = folder / "provenance.json"
    if not path.is_file():
        raise InputError([Problem(folder.name, "no provenance.json", "the result folder of a run that ended",
                                  "run the study again: what is finished is kept")])  # fmt: skip
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(v, str) for part in ("inputs", "outputs") for v in found[part].values()):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError([Problem("provenance.json", "something else", "inputs and outputs with their SHA-256",
                                  "it was changed; run the study again")]) from None  # fmt: skip
    return dict(found)


def _home(folder: Path, root: str | Path | None) -> tuple[Path | None, list[Finding]]:
    """Return the study's folder, by the results' own settings where nobody says."""
    if root is not None:
        return Path(root), []
    try:
        settings = tomllib.loads((folder / "settings.toml").read_text(encoding="utf-8"))
        home = (folder / str(settings["study_file"])).resolve().parent
    except (OSError, ValueError, KeyError):
        return None, [
            Finding("input", "settings.toml", "it does not name the study; inputs were not compared: name its folder")
        ]
    if not home.is_dir():
        return None, [Finding("input", home.name, "the study is not there; inputs were not compared: name its folder")]
    return home, []


def _compare(what: str, path: Path, name: str, digest: str) -> Finding | None:
    if not path.exists():
        return Finding(what, name, "it is gone")
    try:
        same = store.sha256(path) == digest
    except OSError as err:
        return Finding(what, name, f"it cannot be read: {err.strerror or err}")
    return None if same else Finding(what, name, "its bytes are not those of the run")


def _shard(folder: Path, key: str) -> Finding | None:
    held, picture = store.read_shard(folder, key), store.shard_path(folder, key, ".png")
    if held is None:
        return Finding("shard", f"scans/{key}.json", "its content does not match its checksum")
    if not picture.is_file() or store.sha256(picture) != held["picture"]:
        return Finding("shard", f"scans/{key}.png", "the picture is not the one that was made")
    return None


def _journal(folder: Path, head: str | None) -> list[Finding]:
    name = journal.JOURNAL
    try:
        entries, where = journal.read(folder), journal.broken(folder)
    except ValueError as err:
        return [Finding("journal", name, str(err))]
    if where is not None:
        return [
            Finding("journal", name, f"line {where} does not follow the line before it: lines were changed or removed")
        ]
    ended = [e for e in entries if e.event == "written"]
    if not ended or ended[-1].facts.get("provenance.json") != store.sha256(folder / "provenance.json"):
        return [Finding("journal", "provenance.json", "the journal tells of another one")]
    if head is not None and journal.head(folder) != head:
        return [Finding("journal", name, f"it ends with {journal.head(folder)}, not with {head}")]
    return []
