"""Batch panel: the session saved as settings, and the whole study run by a program of its own while the viewer goes on."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, QProcess, QProcessEnvironment, Qt, QTimer, QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QWidget,
)

from napari_evbiodist.batch_model import Results, Run, command, few, home_of, read_results, results_of, save, unsaved
from napari_evbiodist.panels.parts import Panel, Rows, Table, in_words
from napari_evbiodist.session import Session

#: How often the panel follows the program, and how long that may take to end when it is asked to.
_FOLLOW_MS, _GRACE_MS = 250, 5000
_SHOWN_FIRST = ("label", "group", "organ", "parameter", "quantity", "model", "value", "estimate", "ci_low", "ci_high", "unit",
                "n", "flags", "reason")  # fmt: skip


class Program(QObject):
    """The run of a viewer: `evbiodist run` as a program, which ends with the window and not with a panel.

    Signals
    -------
    went_on : it told something.
    ended : with how it ended, in a sentence.
    """

    went_on = Signal()
    ended = Signal(str)

    def __init__(self, window: QObject, session: Session, settings: Path, out: Path, workers: int) -> None:
        super().__init__(window)
        self.session, self.study, self.out = session, session.study, out
        self.run, self.ending, self.status = Run(), "", 0
        self.cancelled = False
        self._rest = {True: b"", False: b""}
        self._process = QProcess(self)
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONUTF8", "1")
        self._process.setProcessEnvironment(environment)
        self._process.setStandardInputFile(QProcess.nullDevice())
        self._process.setProgram(sys.executable)
        self._process.setArguments(command(settings, out, workers))
        self._process.readyReadStandardOutput.connect(self._hear)
        self._process.readyReadStandardError.connect(self._hear)
        self._process.finished.connect(self._finished)
        self._process.errorOccurred.connect(self._failed)
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.timeout.connect(self._process.kill)
        window.destroyed.connect(self.end)
        app = QApplication.instance()
        assert app is not None  # noqa: S101
        app.aboutToQuit.connect(self.end)
        self._process.start()

    @property
    def running(self) -> bool:
        """Whether the program runs."""
        return self._process.state() != QProcess.ProcessState.NotRunning

    def process_id(self) -> int:
        """Return the program's number."""
        return int(self._process.processId())

    def cancel(self) -> None:
        """Ask the program to end; end it when it does not."""
        self.cancelled = True
        self._process.terminate()
        self._patience.start(_GRACE_MS)

    def end(self) -> None:
        """End the program now and tell nobody, because the window goes."""
        if self.running:
            self.blockSignals(True)
            self._process.kill()
            self._process.waitForFinished(_GRACE_MS)

    def _hear(self) -> None:
        for line in self._lines(self._process.readAllStandardOutput().data(), error=False):
            self.run.hear(line, time.monotonic())
        for line in self._lines(self._process.readAllStandardError().data(), error=True):
            self.run.overhear(line)
        self.went_on.emit()

    def _lines(self, data: bytes, error: bool) -> list[str]:
        """Return the whole lines so far; a piece of one waits for its rest."""
        *lines, self._rest[error] = (self._rest[error] + data).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]

    def _finished(self, status: int, how: QProcess.ExitStatus) -> None:
        self._patience.stop()
        self._hear()
        for rest in self._rest.values():
            self.run.overhear(rest.decode("utf-8", "replace"))
        self._end(status, self.run.ending(status, how != QProcess.ExitStatus.NormalExit, self.cancelled))

    def _failed(self, error: QProcess.ProcessError) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self._end(-1, f"{Path(sys.executable).name} cannot be started ({self._process.errorString()}); "
                          "copy the command and run it in a terminal")  # fmt: skip

    def _end(self, status: int, sentence: str) -> None:
        self.status, self.ending = status, sentence
        self.ended.emit(sentence)


class BatchPanel(Panel):
    """Save the session, run the study, open what came out."""

    title = "Batch"

    def build(self) -> None:
        """Make the widgets."""
        self.results: Results | None = None
        self._told = 0
        self._build_save()
        self._build_run()
        self._build_results()
        self.column.addStretch()
        self._follow = QTimer(self)
        self._follow.setSingleShot(True)
        self._follow.timeout.connect(self.follow)
        self._homes_of: Session | None = None
        bench = self.bench
        for signal in (bench.opened, bench.edited, bench.settings_changed, bench.measured, bench.jobs_changed):
            signal.connect(self.renew)
        self.renew()
        if self.program is not None:
            self._listen(self.program)
            self.follow()

    def _build_save(self) -> None:
        self.heading("Save")
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.state.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.column.addWidget(self.state)
        form = QFormLayout()
        self.folder = self._folder_field(form, "in folder", "settings.toml, tables and edited organs go here; images stay where "
                                         "they are inside the study's folder, and are copied along elsewhere")  # fmt: skip
        self.column.addLayout(form)
        self.save_button = self.button("Save", self.save, "write settings.toml, from which the same numbers come again")
        self.command_button = self.button(
            "Copy command", self.copy_command, "the command that runs this session in a terminal"
        )
        self.python_button = self.button("Copy as Python", self.copy_python, "the script that runs this session")
        self.row(self.save_button, self.command_button, self.python_button)

    def _build_run(self) -> None:
        self.heading("Run the whole study")
        form = QFormLayout()
        self.out = self._folder_field(
            form, "results in", "the result folder; a run that was called off is taken up there"
        )
        self.workers = QSpinBox()
        self.workers.setRange(1, max(1, os.cpu_count() or 1))
        self.workers.setValue(max(1, (os.cpu_count() or 1) - 1))
        self.workers.setToolTip("scans that are measured at the same time; the results do not depend on it")
        form.addRow("processes", self.workers)
        self.column.addLayout(form)
        self.run_button = self.button(
            "Run", self.start, "save what is not saved, then run the study; the viewer stays free"
        )
        self.cancel_button = self.button("Cancel", self.cancel, "call the run off; what was finished is kept")
        self.row(self.run_button, self.cancel_button)
        self.bar = QProgressBar()
        self.bar.setMaximumHeight(14)
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.scans = Table(
            Rows({"scan": "scan", "outcome": "outcome"}, mark=lambda row: row["outcome"] != "measured"), 110
        )
        self.said = QPlainTextEdit()
        self.said.setReadOnly(True)
        self.said.setFixedHeight(80)
        for widget in (self.bar, self.words, self.scans, self.said):
            self.column.addWidget(widget)
            widget.hide()

    def _build_results(self) -> None:
        self.heading("Results")
        self.report_button = self.button("Open report", self.open_report, "report.html in the web browser")
        self.load_button = self.button("Load results", self.load, "show the tables of the result folder here, and its "
                                       "observations as the study's numbers")  # fmt: skip
        self.row(self.report_button, self.load_button)
        self.which = QComboBox()
        self.which.setToolTip("a table of the result folder")
        self.which.currentTextChanged.connect(self.show_table)
        self.find = QLineEdit()
        self.find.setPlaceholderText("find organ, label, parameter …")
        self.find.setClearButtonEnabled(True)
        self.tables = QWidget()
        line = QHBoxLayout(self.tables)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.which)
        line.addWidget(self.find)
        self.column.addWidget(self.tables)
        self.tables.hide()
        self.table: Table | None = None

    def _folder_field(self, form: QFormLayout, words: str, tip: str) -> QLineEdit:
        field, ask = QLineEdit(), QPushButton("Choose…")
        field.setToolTip(tip)
        ask.setToolTip("choose another folder")
        ask.clicked.connect(partial(_ask_folder, field))
        line = QHBoxLayout()
        line.addWidget(field)
        line.addWidget(ask)
        form.addRow(words, line)
        return field

    # saving

    def renew(self, *_: Any) -> None:
        """Show the session as it stands."""
        session = self.bench.session
        running = self.program is not None and self.program.running
        for button in (self.save_button, self.command_button, self.python_button, self.load_button, self.report_button):
            button.setEnabled(session is not None)
        self.run_button.setEnabled(session is not None and not running)
        self.cancel_button.setEnabled(running)
        if session is None:
            self.state.setText("Open a study in the study panel; here it is saved and run as a whole.")
            return
        if self._homes_of is not session:
            self._homes_of = session
            self.folder.setText(str(home_of(session)))
            self.out.setText(str(session.results or results_of(session)))
        if unsaved(session):
            self.state.setText("There are changes that are in no file yet; Save or Run writes them.")
        elif session.saved is not None:
            self.state.setText(f"Saved: {session.saved}")
        else:
            self.state.setText("Nothing was changed since the study was opened.")

    @in_words
    def save(self) -> None:
        """Save the session in the chosen folder."""
        self._save()

    def _save(self, then: Any = None) -> None:
        self.bench.keep_edits()
        session, folder = self.bench.study(), Path(_given(self.folder, "in folder"))
        before = session.study

        def take(settings: Path) -> None:
            if session.study is not before:
                self.bench.say_warning("the session was changed while it was saved; save it again")
                return
            session.saved = settings
            self.bench.say(f"saved in {settings.parent}")
            if then is not None:
                then()

        # copying a study's images takes long, and showing another scan shall not wait for it
        lane = "quick" if folder.resolve().is_relative_to(session.study.root.resolve()) else "long"
        self.bench.work(f"saving {folder.name}", save, session.without_pixels(), folder, then=take, lane=lane)

    @in_words
    def copy_command(self) -> None:
        """Put the command that runs this session on the clipboard."""
        self._copy(self.bench.study().as_command, "the command is on the clipboard; paste it into a terminal")

    @in_words
    def copy_python(self) -> None:
        """Put the script that runs this session on the clipboard."""
        self._copy(self.bench.study().as_python, "the script is on the clipboard; paste it into a file or notebook")

    def _copy(self, write: Any, done: str) -> None:
        self.bench.keep_edits()
        try:
            text = write(_given(self.out, "results in"))
        except ValueError as err:
            raise ValueError(f"{err}: press Save, then copy again") from None
        QApplication.clipboard().setText(text)
        self.bench.say(done)

    # running

    @property
    def program(self) -> Program | None:
        """The run of this viewer, also one that ended."""
        return self.bench.program

    @in_words
    def start(self) -> None:
        """Save what is not saved, then run the study."""
        if self.program is not None and self.program.running:
            raise ValueError("a run is under way; cancel it or wait for it")
        self.bench.keep_edits()
        _given(self.out, "results in")
        if unsaved(self.bench.study()):
            self._save(then=self._run)
        else:
            self._run()

    @in_words
    def _run(self) -> None:
        session = self.bench.study()
        out = Path(_given(self.out, "results in"))
        window = self.bench.viewer.window._qt_window
        self.bench.program = Program(window, session, session.settings_file(), out, self.workers.value())
        self._told = 0
        self._listen(self.bench.program)
        self.follow()

    def _listen(self, program: Program) -> None:
        program.went_on.connect(self._soon)
        program.ended.connect(self._ended)

    @in_words
    def cancel(self) -> None:
        """Call the run off; what was finished is kept, and the next run takes it up."""
        if self.program is not None and self.program.running:
            self.words.setText("calling the run off …")
            self.program.cancel()

    def _soon(self) -> None:
        if not self._follow.isActive():
            self._follow.start(_FOLLOW_MS)

    def follow(self) -> None:
        """Show how far the run is."""
        program = self.program
        if program is None:
            return
        run = program.run
        self.bar.setVisible(program.running)
        self.bar.setRange(0, run.total)
        self.bar.setValue(run.done)
        self.words.setText(program.ending or run.words())
        self.words.show()
        rows = [{"scan": name, "outcome": why or "measured"} for name, why in run.scans]
        self.scans.setVisible(bool(rows))
        if len(rows) != self.scans.rows.rowCount():
            self.scans.put(rows)
            self.scans.scrollToBottom()
        said = "\n".join(run.sentences())
        self.said.setVisible(bool(said))
        if said != self.said.toPlainText():
            self.said.setPlainText(said)
        odd = [*run.problems, *run.said]
        if len(odd) > self._told and program.status != -1:
            self.bench.say_warning(few(odd[self._told :]))
            self._told = len(odd)
        self.renew()

    @in_words
    def _ended(self, sentence: str) -> None:
        self._follow.stop()
        self.follow()
        program = self.program
        assert program is not None  # noqa: S101
        if program.run.errors or program.status not in (0, 1):
            say = self.bench.say if program.cancelled else self.bench.say_error
            say(few([sentence, *program.run.errors]))
        elif program.run.failures:
            self.bench.say_warning(few([sentence, *program.run.failures]))
        else:
            self.bench.say(sentence)

    # results

    @in_words
    def open_report(self) -> None:
        """Open the report in the web browser."""
        report = Path(_given(self.out, "results in")) / "report.html"
        if not report.is_file():
            raise ValueError(f"'{report.parent.name}' holds no report; run the study first")
        if not QDesktopServices.openUrl(QUrl.fromLocalFile(str(report.resolve()))):
            raise ValueError(f"no web browser answered; open {report} yourself")

    @in_words
    def load(self) -> None:
        """Read the result folder: its tables are shown, and its observations are the study's numbers until something changes."""
        self.bench.study()
        folder = Path(_given(self.out, "results in"))
        self.bench.work(f"reading {folder.name}", read_results, folder, then=self._take)

    @in_words
    def _take(self, results: Results) -> None:
        self.results = results
        program, session = self.program, self.bench.study()
        if program is not None and program.out == results.folder and program.study is session.study:
            session.results = results.folder
            self.bench.measured.emit()
        elif session.results != results.folder:
            self.bench.say("these tables are not of the session as it stands; run it again for that")
        now = self.which.currentText()
        self.which.blockSignals(True)
        self.which.clear()
        self.which.addItems(list(results.tables))
        if now in results.tables:
            self.which.setCurrentText(now)
        self.which.blockSignals(False)
        self.show_table(self.which.currentText())

    def show_table(self, name: str) -> None:
        """Show a table of the results."""
        if self.results is None or name not in self.results.tables:
            return
        rows = self.results.tables[name]
        columns = sorted(rows[0], key=lambda c: _SHOWN_FIRST.index(c) if c in _SHOWN_FIRST else len(_SHOWN_FIRST))
        columns = [c for c in columns if any(row[c] is not None for row in rows)]
        table = Table(Rows({c: c for c in columns}, mark=_missing), 200)
        table.put(rows)
        table.filter(self.find.text())
        self.find.textChanged.connect(table.filter)
        place = self.column.indexOf(self.tables) + 1
        if self.table is not None:
            self.column.removeWidget(self.table)
            self.table.deleteLater()
        self.column.insertWidget(place, table)
        self.table = table
        self.tables.show()


def _missing(row: Mapping[str, Any]) -> bool:
    """Return whether a row of results has no number."""
    return "reason" in row and row.get("value", row.get("estimate", 0.0)) is None


def _given(field: QLineEdit, words: str) -> str:
    text = field.text().strip()
    if not text:
        raise ValueError(f"'{words}' is empty; choose a folder")
    return text


def _ask_folder(field: QLineEdit, _checked: bool = False) -> None:
    folder = QFileDialog.getExistingDirectory(field, "Choose a folder", str(Path(field.text()).parent))
    if folder:
        field.setText(folder)
