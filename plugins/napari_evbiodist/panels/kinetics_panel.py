"""Kinetics panel: from time curves to parameters, models and labels compared; as the batch does it, to the last byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QPlainTextEdit, QSizePolicy, QTabWidget

from evbiodist.batch import store
from evbiodist.crossval.compare import Comparison
from evbiodist.kinetics.analyse import PARAMETER_COLUMNS, TerminalLine
from evbiodist.report.figures import colours
from evbiodist.study.model import KineticsSettings, LambdaZChoice, Study
from napari_evbiodist import kinetics_model
from napari_evbiodist.kinetics_model import Again, Fitted
from napari_evbiodist.panels.kinetics_curve import CurvePage
from napari_evbiodist.panels.kinetics_pages import LabelsPage, ModelsPage, RulesPage
from napari_evbiodist.panels.parts import Panel, Sentences, in_words

_NO_STUDY = "No study is open. Open one, or images, in the study panel."
_NOTHING = "Nothing is analysed yet. Analyse measures what has no numbers, then fits every curve as the batch does."
_OUTDATED = "Something was changed since; these numbers are from before. Analyse renews them."
_COMPARING = "Labels are being compared; what was fitted is shown already."
_NOT_COMPARED = "Labels were not compared to the end. Analyse does it."
_READ = "These numbers are those of the result folder that was opened."
_MODELS_LATER = "Models are compared when you press Analyse; a result folder does not hold that."
_ONE = "There is nothing to compare: fits of a label, or several labels, are missing. The list below says why."


class KineticsPanel(Panel):
    """Choose rules, analyse, look at curves, toggle terminal samples, compare models and labels."""

    title = "Kinetics"

    def build(self) -> None:
        """Make the widgets."""
        self.forget()
        self.go = self.button(
            "Analyse", self.analyse, "measure what has no numbers yet, then do what evbiodist run does"
        )
        self.keep = self.button("Save parameters…", self.ask_file, "parameters.csv as the batch writes it")
        self.row(self.go, self.keep)
        self.state = Sentences()
        self.column.addWidget(self.state)
        self.rules, self.curve, self.models, self.labels = RulesPage(), CurvePage(), ModelsPage(), LabelsPage()
        self.tabs = QTabWidget()
        self.tabs.currentChanged.connect(self._fit_page)
        for name, page in (
            ("Rules", self.rules),
            ("Curve", self.curve),
            ("Models", self.models),
            ("Labels", self.labels),
        ):
            self.tabs.addTab(page, name)
        self.column.addWidget(self.tabs)
        self.heading("What could not be analysed, and why")
        self.missing = QPlainTextEdit()
        self.missing.setReadOnly(True)
        self.missing.setFixedHeight(80)
        self.column.addWidget(self.missing)
        self.column.addStretch()
        self.rules.changed.connect(self.change)
        self.curve.points_chosen.connect(self.take_points)
        self.curve.points_freed.connect(self.free_points)
        self.curve.organ_chosen.connect(self.bench.pick)
        self.curve.refused.connect(self.bench.say_warning)
        self.labels.organ_chosen.connect(self.bench.pick)
        self.bench.opened.connect(self._opened)
        for signal in (self.bench.settings_changed, self.bench.measured):
            signal.connect(self._changed)
        self.bench.edited.connect(self._edited)
        self.bench.organ_picked.connect(self._picked)
        self.bench.jobs_changed.connect(self._busy)
        self._opened()

    def forget(self) -> None:
        """Hold no results."""
        self.fitted: Fitted | None = None
        self.comparison: Comparison | None = None
        self.failures: dict[str, str] = {}
        self._rests_on: Any = None
        self._choices: tuple[LambdaZChoice, ...] = ()
        self._comparing = False

    # what it rests on

    def _now(self) -> Any:
        """Return all that the numbers rest on but the chosen samples, which are exchanged curve by curve."""
        session = self.bench.study()
        settings = session.study.settings
        kinetics = settings.kinetics.model_copy(update={"lambda_z": ()})
        settings = settings.model_copy(update={"kinetics": kinetics})
        return session.study.model_copy(update={"settings": settings}), session.scanned()[0]

    def _is_current(self) -> bool:
        study, rows = self._now()
        before, measured = self._rests_on
        return bool(
            study == before and measured in (None, rows)
        )  # None: the rows of a result folder, whatever is measured again

    @property
    def outdated(self) -> bool:
        """Whether something was changed since the analysis."""
        settings = self.bench.study().study.settings.kinetics
        return self.fitted is not None and not (self._is_current() and settings.lambda_z == self._choices)

    @in_words
    def _opened(self) -> None:
        self.forget()
        self._show_settings()
        self._show_all()
        session = self.bench.session
        if session is not None and session.results is not None and (session.results / "parameters.csv").is_file():
            study, rests_on = session.study, (self._now()[0], None)

            def take(found: tuple[Fitted, Comparison]) -> None:
                self._take(study, found[0], rests_on, study.settings.kinetics.lambda_z)
                self._take_comparison(study, found[1])

            self.bench.work("reading results", kinetics_model.read, study, session.results, then=take)

    @in_words
    def _changed(self) -> None:
        if self.bench.session is not None:
            self._show_settings()
            self._show_state()

    @in_words
    def _edited(self, _scan: str) -> None:
        self._show_state()

    @in_words
    def _picked(self, organ: str) -> None:
        self.curve.choose(organ=organ)

    @in_words
    def _busy(self) -> None:
        working = any(job.title in ("measuring", "analysing") for job in self.bench.jobs)
        self.go.setEnabled(self.bench.session is not None and not working)
        if not working and self._comparing:  # called off, or failed
            self._comparing = False
            self._show_all()

    def _fit_page(self, index: int) -> None:
        """Let the page that is seen say how high the tabs are."""
        for i in range(self.tabs.count()):
            high = QSizePolicy.Policy.Preferred if i == index else QSizePolicy.Policy.Ignored
            self.tabs.widget(i).setSizePolicy(QSizePolicy.Policy.Preferred, high)
        self.tabs.updateGeometry()

    # doing

    @in_words
    def change(self, keys: dict[str, Any]) -> None:
        """Change rules or models."""
        try:
            if self.bench.session is None:
                raise ValueError(_NO_STUDY)
            self.bench.change_settings(kinetics=keys)
        finally:
            self._show_settings()

    @in_words
    def analyse(self) -> None:
        """Measure what has no numbers, then analyse everything."""
        self.bench.study()
        self.bench.measure(then=self._analyse)

    @in_words
    def _analyse(self) -> None:
        session = self.bench.study()
        rows, self.failures = session.scanned()
        self.failures |= dict.fromkeys(
            session.drafts, "subject, label or time is not told; give them in the study panel"
        )
        if not rows and not session.study.observation_sources:
            raise ValueError("no scan gave a number, and the study has no table of observations: "
                             + "; ".join(f"{k}: {v}" for k, v in list(self.failures.items())[:3]))  # fmt: skip
        rests_on, choices, study = self._now(), session.study.settings.kinetics.lambda_z, session.study

        def take(fitted: Fitted) -> None:
            self._take(study, fitted, rests_on, choices)

        def compared(comparison: Comparison) -> None:
            self._take_comparison(study, comparison)

        self._comparing = True
        self.bench.work(
            "analysing",
            kinetics_model.analyse,
            study,
            rows,
            event=take,
            then=compared,
            lane="long",
            total=2,
        )

    @in_words
    def _take(self, study: Study, fitted: Fitted, rests_on: Any, choices: tuple[LambdaZChoice, ...]) -> None:
        if self.bench.session is None or self.bench.session.study.root != study.root:
            return
        self.fitted, self._rests_on, self._choices, self.comparison = fitted, rests_on, choices, None
        if self.tabs.currentWidget() is self.rules:
            self.tabs.setCurrentWidget(self.curve)
        self._show_all()
        if self.bench.organ:
            self.curve.choose(organ=self.bench.organ)

    @in_words
    def _take_comparison(self, study: Study, comparison: Comparison) -> None:
        self._comparing = False
        if self.fitted is not None and self.bench.study().study.root == study.root:
            self.comparison = comparison
            self._show_all()

    # samples of the terminal line

    @in_words
    def take_points(self, line: TerminalLine, times: tuple[float, ...], why: str) -> None:
        """Make these samples the terminal line of a curve, and analyse that curve anew."""
        self._choose(line, kinetics_model.with_choice(self._kinetics(), line, times, why))

    @in_words
    def free_points(self, line: TerminalLine) -> None:
        """Let the best samples make the terminal line again."""
        held = kinetics_model.choice_of(self._kinetics(), line)
        if held is not None and not (held.group and held.subject):
            self.bench.say(
                f"the choice held for every curve of {held.label} in {held.organ}, and is gone for all of them"
            )
        self._choose(line, kinetics_model.without_choice(self._kinetics(), line))

    def _kinetics(self) -> KineticsSettings:
        return self.bench.study().study.settings.kinetics

    def _choose(self, line: TerminalLine, choices: list[dict[str, Any]]) -> None:
        fitted = self.fitted
        if fitted is None:
            return
        current = not self.outdated
        self.bench.change_settings(kinetics={"lambda_z": choices})
        study = self.bench.study().study
        rows = kinetics_model.needed_for(fitted.observations, line.label, line.organ)

        def take(again: Again) -> None:
            self._take_curve(current, study, again)

        self.bench.work(
            f"{line.organ}, {line.label}", kinetics_model.analyse_curve, study, rows, line.label, line.organ, then=take
        )

    @in_words
    def _take_curve(self, current: bool, study: Study, again: Again) -> None:
        if self.fitted is None:
            return
        self.fitted = kinetics_model.with_again(self.fitted, again)
        if current:
            self._choices = study.settings.kinetics.lambda_z
        self._show_all()

    # showing

    def _show_settings(self) -> None:
        session = self.bench.session
        study = session.study if session else None
        self.rules.put(study.settings.kinetics if study else KineticsSettings(), kinetics_model.models_of(study))
        self.rules.setEnabled(study is not None)

    def _show_all(self) -> None:
        session = self.bench.session
        fitted, comparison = self.fitted or Fitted([]), self.comparison or Comparison()
        palette = colours(sorted({r["label"] for r in fitted.observations}))
        self.curve.put(fitted, session.study.settings.kinetics if session else KineticsSettings(), palette)
        from_folder = self.fitted is not None and self._rests_on[1] is None
        self.models.put(fitted.models, _NOTHING if self.fitted is None else _MODELS_LATER if from_folder else "")
        empty = (
            _NOTHING
            if self.fitted is None
            else _COMPARING
            if self._comparing
            else _NOT_COMPARED
            if self.comparison is None
            else _ONE
        )
        self.labels.put(comparison, palette, empty)
        self.keep.setEnabled(self.fitted is not None)
        told = kinetics_model.unanalysed(fitted.parameters, self.failures, [*fitted.notes, *comparison.notes])
        done = "nothing: every curve and every model was analysed" if self.fitted is not None else ""
        self.missing.setPlainText("\n".join(told) or done)
        self._show_state()
        self._busy()

    def _show_state(self) -> None:
        if self.bench.session is None:
            self.state.say([_NO_STUDY])
        elif self.fitted is None:
            self.state.say([_NOTHING])
        elif self.outdated:
            self.state.say([_OUTDATED])
        else:
            from_folder = [_READ] if self._rests_on[1] is None else []
            self.state.say([_COMPARING] if self._comparing else from_folder)

    # files

    @in_words
    def ask_file(self) -> None:
        """Ask where parameters.csv shall be written."""
        name, _ = QFileDialog.getSaveFileName(self, "Save parameters", "parameters.csv", "tables (*.csv)")
        if name:
            self.save(Path(name))

    @in_words
    def save(self, path: Path) -> None:
        """Write the parameters that are shown, as the batch writes them."""
        if self.fitted is None:
            raise ValueError(_NOTHING)
        if self.outdated:
            raise ValueError("the parameters are from before the last change; press Analyse, then save them")
        store.write_bytes(path, store.csv_bytes(self.fitted.parameters, PARAMETER_COLUMNS))
        self.bench.say(f"{len(self.fitted.parameters)} parameters written to {path.name}")
