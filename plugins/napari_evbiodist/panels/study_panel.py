"""Study panel: what was done, scan by scan, what is missing or odd about it, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import (
    QComboBox,
    QCompleter,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
)

from evbiodist.study.labels import catalogue
from napari_evbiodist.panels.parts import Panel, Rows, Sentences, Table, in_words

_COLUMNS = {"label": "label", "hours": "time_h", "subject": "subject", "scan": "scan", "kind": "kind", "edited": "edited",
            "odd": "problems"}  # fmt: skip
#: What is asked for a file that no study describes: words, and what stands in the empty field.
_FACTS = {
    "subject": ("subject", "m1, or m1;m2;m3 from left to right"),
    "label": ("label", "DiR, 111In, NanoLuc …"),
    "time_h": ("hours after dose", "2.5"),
    "pixel_size_mm": ("pixel size, mm", "as the file states it"),
}
_NUMBERS = ("time_h", "pixel_size_mm")
_KINDS = ("ex_vivo", "in_vivo", "volume")


class StudyPanel(Panel):
    """Open a study, browse its scans, see what is odd."""

    title = "Study"

    def build(self) -> None:
        """Make the widgets."""
        self.setAcceptDrops(True)
        self.name = QLabel("Open a study, a result folder or images; or drop them here.")
        self.name.setWordWrap(True)
        self.column.addWidget(self.name)
        self.row(
            self.button("Open study…", self.ask_study, "study.toml, settings.toml, or its folder"),
            self.button("Open images…", self.ask_images, "files of any scanner; you then say what they are"),
            self.button("Demo", self.open_demo, "the sample study in a folder of its own, to try everything"),
        )
        self.find = QLineEdit()
        self.find.setPlaceholderText("find subject, label, scan …")
        self.find.setClearButtonEnabled(True)
        self.column.addWidget(self.find)
        self.table = Table(Rows(_COLUMNS, tips={"problems": "problems"}, mark=lambda row: bool(row["problems"])), 220)
        self.find.textChanged.connect(self.table.filter)
        self.table.chosen.connect(self.choose)
        self.column.addWidget(self.table)
        self.about = QLabel()
        self.about.setWordWrap(True)
        self.column.addWidget(self.about)
        self._build_facts()
        self.earlier = self.button("Take up edits of an earlier session", self.take_up)
        self.earlier.hide()
        self.column.addWidget(self.earlier)
        self.heading("What is wrong, and what to do")
        self.wrong = QPlainTextEdit()
        self.wrong.setReadOnly(True)
        self.wrong.setFixedHeight(90)
        self.column.addWidget(self.wrong)
        self.heading("What the study does not hold")
        self.lacks = Sentences()
        self.column.addWidget(self.lacks)
        self.column.addStretch()
        self.bench.opened.connect(self.renew)
        self.bench.edited.connect(self.renew)
        self.bench.shown.connect(self._shown)
        self.renew()

    def _build_facts(self) -> None:
        self.facts = QGroupBox("What this file does not say")
        form = QFormLayout(self.facts)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.fields: dict[str, QLineEdit] = {}
        for key, (words, example) in _FACTS.items():
            self.fields[key] = QLineEdit()
            self.fields[key].setPlaceholderText(example)
            form.addRow(words, self.fields[key])
        self.fields["label"].setCompleter(QCompleter(sorted(catalogue()), self.fields["label"]))
        self.kind = QComboBox()
        self.kind.addItems(_KINDS)
        form.insertRow(len(_FACTS) - 1, "kind", self.kind)
        form.addRow(self.button("Say so", self.tell, "the scan then belongs to the study and can be measured"))
        self.facts.hide()
        self.column.addWidget(self.facts)

    # opening

    @in_words
    def ask_study(self) -> None:
        """Ask for a study's file."""
        name, _ = QFileDialog.getOpenFileName(self, "Open a study", "", "studies (*.toml)")
        if name:
            self.bench.open(name)

    @in_words
    def ask_images(self) -> None:
        """Ask for images."""
        names, _ = QFileDialog.getOpenFileNames(self, "Open images")
        if names:
            self.bench.open(names)

    @in_words
    def open_demo(self) -> None:
        """Copy the sample study to a folder of the user's choice and open it."""
        from evbiodist.sample import DEMO, copy_sample

        folder = QFileDialog.getExistingDirectory(self, "Where shall the demo study be copied?")
        if folder:
            self.bench.open(copy_sample(DEMO, Path(folder) / "evbiodist-demo"))

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802  Qt's name
        """Take files."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    @in_words
    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802  Qt's name
        """Open what was dropped."""
        files = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if files:
            event.acceptProposedAction()
            self.bench.open(files)

    # showing

    def renew(self, *_: Any) -> None:
        """Show the session as it stands."""
        session = self.bench.session
        if session is None:
            return
        rows = [{**row.__dict__} for row in session.table()]
        study = session.study
        labels = ", ".join(study.labels) or "no label yet"
        self.name.setText(f"{study.name}: {len(rows)} scans, {len(study.subjects)} subjects, {labels}")
        self.table.put(rows)
        self.table.choose(lambda row: row["scan"] == self.bench.current)
        wrong = [str(p) for p in self.bench.problems]
        wrong += [p for row in rows for p in row["problems"] if p not in wrong]
        self.wrong.setPlainText("\n".join(wrong) or "nothing was found")
        self.lacks.say(self.bench.missing)
        self.earlier.setVisible(bool(session.earlier_edits()))

    @in_words
    def choose(self, row: Mapping[str, Any]) -> None:
        """Show the scan of a row."""
        if row["scan"] != self.bench.current:
            self.bench.show(str(row["scan"]))

    @in_words
    def _shown(self, scan: str) -> None:
        session = self.bench.study()
        self.table.choose(lambda row: row["scan"] == scan)
        image = session.scan(scan)
        about = [f"{scan}: {image.axes} {tuple(image.counts.shape)}, {image.unit}"]
        size = image.pixel_size_mm
        about.append(f"pixels of {size[0]:g} x {size[1]:g} mm" if size else "pixel size not stated: shown in pixels")
        self.about.setText("; ".join(about) + "".join(f"\n{w}" for w in (*image.warnings, *image.notes)))
        draft = session.drafts.get(scan)
        self.facts.setVisible(draft is not None)
        self.kind.setCurrentText(str((draft or {}).get("kind") or _KINDS[0]))
        for key, field in self.fields.items():
            value = (draft or {}).get(key)
            field.setText("" if value is None else str(value))

    @in_words
    def tell(self) -> None:
        """Take what the user says about a file that no study describes."""
        given = {key: field.text().strip() for key, field in self.fields.items() if field.text().strip()}
        facts: dict[str, Any] = {key: _number(key, text) if key in _NUMBERS else text for key, text in given.items()}
        facts["kind"] = self.kind.currentText()
        if self.bench.current is None:
            raise ValueError("no scan is shown; choose a row of the table")
        scan = self.bench.current
        self.bench.tell(scan, **facts)
        self.bench.show(scan)

    @in_words
    def take_up(self) -> None:
        """Take organs that an earlier session edited and nobody saved."""
        session = self.bench.study()
        taken = session.take_up()
        self.bench.say(f"organs of {len(taken)} scans as they were edited before: {', '.join(taken)}")
        self.bench.opened.emit()
        if self.bench.current in taken:
            self.bench.show(str(self.bench.current))


def _number(key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{key}: found '{text}', expected a number such as 2.5; correct it") from None
