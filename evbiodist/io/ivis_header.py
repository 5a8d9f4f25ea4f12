"""The header of a Living Image click: sections of keys and values, in full and in order.

Keys repeat between sections, one has two colons, and comments trail values; nothing is dropped here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from evbiodist.study.problems import UnreadableImage

INFO = "ClickInfo.txt"
_ANALYZED = "AnalyzedClickInfo.txt"
#: Largest header that is read, in bytes.
_MAX_TEXT = 16 << 20
#: A longer key is none that Living Image writes; its end is cut off, because keys are searched for words.
_MAX_KEY = 200
_SECTION = re.compile(r"^\*\*\*\s*([^\s:][^:]*):\s*(.*)$")


@dataclass(frozen=True)
class Section:
    """One block of a click's header: its name, the file it describes, and its keys."""

    name: str
    file: str
    keys: dict[str, str]

    def number(self, key: str) -> float | None:
        """Return a key's first number, or None."""
        hit = re.search(r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?", self.keys.get(key, ""))
        return float(hit.group()) if hit else None

    def on(self, key: str) -> bool:
        """Whether a 0/1 key stands at 1."""
        return self.number(key) == 1


def parse_click_info(text: str) -> tuple[Section, ...]:
    """Parse ClickInfo.txt into its sections; keys repeat between sections, so none are merged.

    Examples
    --------
    >>> a, b = parse_click_info("*** one:\\tx.TIF\\nVersion:\\t:\\t3.0\\n*** two:\\nLens:\\t1\\t\\t# a comment\\n")
    >>> a.file, a.keys, b.keys
    ('x.TIF', {'Version': '3.0'}, {'Lens': '1'})
    """
    sections: list[Section] = []
    for line in text.splitlines():
        head = _SECTION.match(line)
        if head:
            sections.append(Section(head.group(1).strip(), head.group(2).strip(), {}))
        elif line.strip() and not line.startswith("#") and ":" in line and sections:
            key, value = line.split(":\t", 1) if ":\t" in line else line.split(":", 1)
            value = re.sub(r"(?<!\s)\s+#.*$", "", value.strip()).lstrip(":").strip()
            sections[-1].keys.setdefault(key.strip().rstrip(":")[:_MAX_KEY], value)
    return tuple(sections)


@dataclass(frozen=True)
class Click:
    """A click folder: its header's sections and where its files are."""

    folder: Path
    sections: tuple[Section, ...]

    def find(self, *words: str) -> Section | None:
        """Return the last section whose name starts with one of the words, in their order."""
        for word in words:
            hits = [s for s in self.sections if s.name.lower().startswith(word)]
            if hits:
                return hits[-1]
        return None

    def value(self, key: str) -> str | None:
        """Return a key of the camera's part of the header."""
        return next((s.keys[key] for s in reversed(self.sections) if key in s.keys), None)

    def path(self, name: str) -> Path | None:
        """Return a file of the folder regardless of upper and lower case, or None.

        Raises
        ------
        UnreadableImage : the file is a link to a place outside the folder.
        """
        return member(self.folder, name)

    @property
    def main(self) -> Section | None:
        """The section of the raw luminescent or fluorescent image, if there is one."""
        names = ("luminescent", "fluorescent")
        hits = [s for s in self.sections if s.name.lower().startswith(names)
                and not re.search("reference|floatcorrected", s.name.lower())]  # fmt: skip
        return hits[-1] if hits else None


def member(folder: Path, name: str) -> Path | None:
    """Return the file of a folder with this name in any case, None without.

    Raises
    ------
    UnreadableImage : a link that leads out of the folder.
    """
    found = next((p for p in sorted(folder.iterdir()) if p.name.lower() == name.lower()), None)
    if found is not None and not found.resolve().is_relative_to(folder.resolve()):
        raise UnreadableImage(found, "it is a link to a place outside its folder, which is not followed; "
                                     "copy the file itself")  # fmt: skip
    return found


def load_click(path: Path) -> Click:
    """Read a click folder's header (with the analysed one, when saved).

    Raises
    ------
    UnreadableImage : no header, or one without sections.
    """
    folder = path if path.is_dir() else path.parent
    text = ""
    for name in (INFO, _ANALYZED):
        file = member(folder, name)
        if file is not None:
            text += text_of(file) + "\n"
    sections = parse_click_info(text)
    if not any(s.file for s in sections):
        raise UnreadableImage(path, f"its {INFO} describes no image; copy the whole click folder again")
    return Click(folder, sections)


def text_of(file: Path) -> str:
    """Return the text of a header.

    Raises
    ------
    UnreadableImage : too large for one.
    """
    if file.stat().st_size > _MAX_TEXT:
        raise UnreadableImage(file, f"{file.stat().st_size} bytes is no header of an instrument; copy it again")
    return file.read_bytes().decode("cp1252", errors="replace")
