"""Organs panel: find organs, see how sure they are, correct them with napari's own brush and polygons, and carry them on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QComboBox, QDoubleSpinBox, QLabel, QLineEdit, QSpinBox, QWidget

from evbiodist.imaging.organs import OrganMap
from napari_evbiodist import jobs
from napari_evbiodist.converters import INDEX, KEY, ORGAN, feature_names, place
from napari_evbiodist.organs_model import (
    HOW,
    new_value,
    polygons_to_organs,
    probability_layer,
    rename,
    rows,
    unresolved_layer,
    vocabulary,
)
from napari_evbiodist.panels.parts import Panel, Rows, Sentences, Table, in_words
from napari_evbiodist.preferences import preferences, remember
from napari_evbiodist.view import add_layers

if TYPE_CHECKING:
    from napari.layers import Labels, Shapes

_COLUMNS = {"value": "value", "organ": "organ", "pixels": "pixels", "size": "size", "": "unit", "sure": "confidence",
            "not told from": "with"}  # fmt: skip
_EDITS = {"time (UTC)": "time", "who": "annotator", "what": "action", "organs": "organs"}
#: Words for the ways, and which options each has.
_WAYS = {
    "tray": ("tray: by the layout of the study", ()),
    "body": ("body: whole animals", ("animals",)),
    "atlas": ("atlas: organs inside one animal", ("view", "weight_g")),
    "clusters": ("clusters: groups of like time curves", ("clusters",)),
}
_BY = {"intensity": "by what shines", "body": "by the animal's outline", "identity": "unmoved"}
#: A stroke is kept this long after the last one, in ms.
_REST = 1000


class OrgansPanel(Panel):
    """Find, judge, correct, name and carry on the organs of the scan that is shown."""

    title = "Organs"

    def build(self) -> None:
        """Make the widgets."""
        self.found: dict[str, OrganMap] = {}
        self.told = QLabel("Open a study in the study panel; its organs are shown here.")
        self.told.setWordWrap(True)
        self.column.addWidget(self.told)
        self._build_find()
        self._build_table()
        self._build_draw()
        self._build_carry()
        self._build_history()
        self.column.addStretch()
        self.rest = QTimer(self)
        self.rest.setSingleShot(True)
        self.rest.setInterval(_REST)
        self.rest.timeout.connect(self._rested)
        self.bench.opened.connect(self._opened)
        self.bench.shown.connect(self._shown)
        self.bench.edited.connect(self._edited)
        self.bench.organ_picked.connect(self._picked)
        self._opened()
        if self.bench.current is not None:
            self._shown(self.bench.current)

    def _build_find(self) -> None:
        self.heading("Find")
        self.way = QComboBox()
        for how in HOW:
            self.way.addItem(_WAYS[how][0], how)
        self.animals, self.clusters, self.weight_g, self.view = QSpinBox(), QSpinBox(), QDoubleSpinBox(), QComboBox()
        self.animals.setRange(0, 20)
        self.animals.setSpecialValueText("as many as seen")
        self.animals.setSuffix(" animals")
        self.clusters.setRange(2, 12)
        self.clusters.setValue(4)
        self.clusters.setSuffix(" groups")
        self.weight_g.setRange(0.0, 1000.0)
        self.weight_g.setSpecialValueText("weight unknown")
        self.weight_g.setSuffix(" g")
        self.view.addItems(["dorsal", "ventral"])
        self.options: dict[str, QWidget] = {"animals": self.animals, "clusters": self.clusters, "weight_g": self.weight_g,
                                            "view": self.view}  # fmt: skip
        self.go = self.button(
            "Find", self.find, "the organs that are found take the place of those shown; Undo brings them back"
        )
        self.row(self.way)
        self.row(*self.options.values(), self.go)
        self.way.currentIndexChanged.connect(self._way_changed)
        self._way_changed()

    def _build_table(self) -> None:
        self.table = Table(Rows(_COLUMNS, mark=lambda row: bool(row["with"])), 150)
        self.table.chosen.connect(self.choose)
        self.column.addWidget(self.table)
        self.unsure = Sentences()
        self.column.addWidget(self.unsure)
        self.name = QComboBox()
        self.name.setEditable(True)
        self.name.addItems(list(vocabulary()))
        self.name.setCurrentText("")
        self.name.setToolTip("a name of the vocabulary, or one of your own")
        self.row(
            self.name,
            self.button("Rename", self.rename, "give the chosen organ this name"),
            self.button("Add", self.add, "a new organ of this name, ready to paint"),
            self.button("Remove", self.remove, "take the chosen organ away"),
        )
        self.row(
            self.button("Probability", self.show_probability, "how much of each pixel belongs to the chosen organ"),
            self.button("Not resolvable", self.show_unresolved, "where organs cannot be told from each other"),
        )

    def _build_draw(self) -> None:
        self.heading("Draw")
        self.row(
            self.button(
                "Brush", self.brush, "paint the chosen organ with napari's brush; kept a second after each stroke"
            ),
            self.button("Keep now", self.keep, "save what was painted"),
            self.button("Undo", self.undo, "the organs as they were before the last change"),
            self.button("Redo", self.redo, "take the undone change again"),
        )
        self.row(
            self.button("Polygons", self.polygons, "draw outlines of the organ named above with napari's polygon tool"),
            self.button("Take polygons", self.take_polygons, "a pixel is the organ's when its centre lies inside"),
            self.button("Draw from nothing", self.blank, "an empty layer to paint on"),
        )

    def _build_carry(self) -> None:
        self.heading("Carry on")
        self.other, self.by = QComboBox(), QComboBox()
        self.other.setToolTip("the scan whose organs are copied here")
        for word, text in _BY.items():
            self.by.addItem(text, word)
        self.row(self.other, self.by)
        self.row(
            self.button("Copy from it", self.copy, "its organs onto the scan that is shown"),
            self.button(
                "Onto later scans", self.propagate, "these organs onto the later scans of the same animal and label"
            ),
        )
        self.carried = Sentences()
        self.column.addWidget(self.carried)

    def _build_history(self) -> None:
        self.heading("History")
        self.annotator = QLineEdit(preferences().annotator)
        self.annotator.setPlaceholderText("who edits: stands in the history")
        self.annotator.editingFinished.connect(self._sign)
        self.column.addWidget(self.annotator)
        self.edits = Table(Rows(_EDITS), 90)
        self.column.addWidget(self.edits)

    # what is shown

    @in_words
    def _opened(self) -> None:
        self.found.clear()
        session = self.bench.session
        if session is not None:
            session.annotator = self.annotator.text()
            self.other.clear()
            self.other.addItems([r.scan for r in session.study.scans])

    @in_words
    def _shown(self, scan: str) -> None:
        self.carried.say(())
        record = next((r for r in self.bench.study().study.scans if r.scan == scan), None)
        if record is not None:
            self.way.setCurrentIndex(self.way.findData("tray" if record.kind == "ex_vivo" else "body"))
            self.view.setCurrentText("ventral" if record.view == "ventral" else "dorsal")
            animal = self.bench.study().study.subject(record.subject, record.label)
            self.weight_g.setValue((animal.weight_g if animal else None) or 0.0)
            self.animals.setValue(len(record.subjects))
            chosen = self.other.currentText()
            self.other.clear()
            scans = self.bench.study().study.scans
            self.other.addItems([r.scan for r in scans if r.kind == record.kind and r.scan != scan])
            self.other.setCurrentIndex(max(0, self.other.findText(chosen)))
        self._watch()
        self._renew()

    @in_words
    def _edited(self, scan: str) -> None:
        if scan == self.bench.current:
            self._watch()
            self._renew()

    def _watch(self) -> None:
        """Hear of every stroke on the organs of this scan."""
        layer = self.bench.organs_layer()
        if layer is not None:
            layer.events.paint.disconnect(self._painted)
            layer.events.paint.connect(self._painted)
            layer.events.selected_label.disconnect(self._label_chosen)
            layer.events.selected_label.connect(self._label_chosen)

    def _renew(self) -> None:
        session, scan = self.bench.study(), self.bench.current or ""
        if scan in session.drafts:
            self.told.setText("What the scan is has to be said in the study panel before its organs can be kept.")
            self.table.put(())
            return
        organs = self.bench.drawn()
        if organs is None:
            self.told.setText(f"No organs: {self.bench.why_no_organs or 'none were found'}. Find or draw them.")
            self.table.put(())
            self.unsure.say(())
        else:
            judged = self.found.get(scan, organs)
            if (
                judged.areas() == organs.areas()
            ):  # what was known when they were found, by the pixel values they have now
                organs = replace(
                    organs, origin=judged.origin, confidence=judged.confidence, unresolved=judged.unresolved
                )
            self.told.setText(f"{scan}: {len(organs.organs)} organs, {organs.origin}")
            self.table.put(rows(organs, session.scan(scan)))
            self.unsure.say([f"{a} and {b} cannot be told apart in this view" for a, b in organs.unresolved])
        self.edits.put([{"time": e.time.replace("+00:00", ""), "annotator": e.annotator, "action": e.action,
                         "organs": ", ".join(e.pixels)} for e in reversed(session.history(scan))])  # fmt: skip

    def _way_changed(self, *_: Any) -> None:
        wanted = _WAYS[self.way.currentData()][1]
        for name, widget in self.options.items():
            widget.setVisible(name in wanted)

    # choosing and naming

    def _value(self) -> int:
        layer = self._layer()
        return int(layer.selected_label)

    def _layer(self) -> Labels:
        layer = self.bench.organs_layer()
        if layer is None:
            raise ValueError("this scan has no organs; find them, or draw from nothing")
        return layer

    @in_words
    def choose(self, row: Mapping[str, Any]) -> None:
        """Take the organ of a row as the one that is painted and shown."""
        self._layer().selected_label = int(row["value"])
        self.name.setCurrentText(str(row["organ"]))
        self.bench.pick(str(row["organ"]))

    @in_words
    def _picked(self, organ: str) -> None:
        self.table.choose(lambda row: row["organ"] == organ)

    @in_words
    def _label_chosen(self, _event: Any = None) -> None:
        layer = self.bench.organs_layer()
        if layer is not None:
            self.table.choose(lambda row: row["value"] == int(layer.selected_label))

    @in_words
    def rename(self) -> None:
        """Give the chosen organ the name that stands in the box, also one that was painted without a name."""
        layer, value = self._layer(), self._value()
        known = feature_names(layer.features, layer.name)
        if value not in known and (np.asarray(layer.data) == value).any():
            new_value(self.name.currentText(), known, {})  # or refuse the name
            layer.features = {INDEX: np.array([*known, value], int),
                              ORGAN: np.array([*known.values(), self.name.currentText().strip()], object)}  # fmt: skip
            self.bench.keep_edits("rename")
            return
        self.bench.keep_edits()
        organs = self.bench.drawn()
        if organs is None:
            raise ValueError("this scan has no organs; find them, or draw from nothing")
        self.bench.take_organs(rename(organs, {self._value(): self.name.currentText()}), "rename")

    @in_words
    def add(self) -> None:
        """Add an organ of the name in the box; its pixels are painted next."""
        name = self.name.currentText().strip()
        if not name:
            raise ValueError("the new organ has no name; write or choose one beside the button")
        layer = self._layer()
        known = [int(v) for v in layer.features[INDEX]]
        used = {*known, *(int(v) for v in np.unique(layer.data))}
        value = new_value(name, used, self.bench.study().study.settings.imaging.organ_labels)
        features = {INDEX: np.array([*known, value], int), ORGAN: np.array([*layer.features[ORGAN], name], object)}
        layer.features = features
        layer.selected_label = value
        self.brush()
        self.told.setText(f"Paint {name} on the picture.")

    @in_words
    def remove(self) -> None:
        """Take the chosen organ away."""
        layer, value = self._layer(), self._value()
        if not (np.asarray(layer.data) == value).any():
            raise ValueError(f"value {value} has no pixels; choose an organ in the table")
        organs = self.bench.drawn()
        assert organs is not None  # noqa: S101  there is a layer
        kept = {v: n for v, n in organs.names.items() if v != value}
        if not kept:
            raise ValueError("it is the last organ of this scan; Undo goes back to what the study finds")
        self.bench.take_organs(
            OrganMap(np.where(organs.labels == value, 0, organs.labels), kept, "label image"), "remove"
        )

    # layers on request

    def _chosen_organ(self) -> str:
        value = self._value()
        name = next((row["organ"] for row in self.table.rows.rows if row["value"] == value), None)
        if name is None:
            raise ValueError("no organ is chosen; choose a row of the table")
        return str(name)

    def _judged(self) -> OrganMap:
        """Return the organs with what was known when they were found, where nobody changed them since."""
        organs, scan = self.bench.drawn(), self.bench.current or ""
        if organs is None:
            raise ValueError("this scan has no organs; find them, or draw from nothing")
        return self.found.get(scan, organs)

    def _add(self, layer: Any) -> None:
        layer[1]["metadata"].setdefault(KEY, {})["of"] = self.bench.current
        for old in [old for old in self.bench.layers_of() if old.name == layer[1]["name"]]:
            self.bench.viewer.layers.remove(old)
        active = self.bench.viewer.layers.selection.active
        add_layers(self.bench.viewer, [layer])
        self.bench.viewer.layers.selection.active = active  # the brush goes on

    @in_words
    def show_probability(self) -> None:
        """Show how much of each pixel belongs to the chosen organ."""
        self._add(
            probability_layer(self._judged(), self.bench.study().scan(self.bench.current or ""), self._chosen_organ())
        )

    @in_words
    def show_unresolved(self) -> None:
        """Show where organs cannot be told apart."""
        self._add(unresolved_layer(self._judged(), self.bench.study().scan(self.bench.current or "")))

    # finding and drawing

    @in_words
    def find(self) -> None:
        """Find organs in the way that is chosen."""
        session, scan, how = self.bench.study(), self.bench.current, self.way.currentData()
        if scan is None:
            raise ValueError("no scan is shown; choose one in the study panel")
        session.record(scan)  # or say what is not known of it
        values: dict[str, Any] = {"animals": self.animals.value() or None, "clusters": self.clusters.value(),
                                  "weight_g": self.weight_g.value() or None, "view": self.view.currentText()}  # fmt: skip
        options = {name: values[name] for name in _WAYS[how][1]}
        self.bench.work(f"finding organs of {scan}", jobs.find, session.source_of(scan), how, session.study.settings.imaging,
                        options, then=_Taken(self, scan, f"segment: {how}"))  # fmt: skip

    @in_words
    def take(self, scan: str, organs: OrganMap, action: str) -> None:
        """Take organs that another process found, where their scan is still shown."""
        if scan == self.bench.current:
            self.bench.take_organs(organs, action)
            self.found[scan] = organs
            self._renew()

    @in_words
    def brush(self) -> None:
        """Take up napari's brush on the organs."""
        layer = self._layer()
        self.bench.viewer.layers.selection.active = layer
        if layer.selected_label == 0 and len(layer.features):
            layer.selected_label = int(layer.features[INDEX].iloc[0])
        layer.mode = "paint"

    @in_words
    def blank(self) -> None:
        """Show an empty layer of organs to paint on."""
        session, scan = self.bench.study(), self.bench.current
        if scan is None:
            raise ValueError("no scan is shown; choose one in the study panel")
        if self.bench.organs_layer() is not None:
            raise ValueError("this scan has organs already; remove those that are wrong, or paint over them")
        image = session.scan(scan)
        shape = image.frame_shape
        features = {INDEX: np.zeros(0, int), ORGAN: np.zeros(0, object)}
        keywords = {**place(image, shape[-2:], "Z" * (len(shape) - 2)), "name": f"{scan} organs", "features": features,
                    "metadata": {KEY: {"of": scan, "sha256": ""}}}  # fmt: skip
        add_layers(self.bench.viewer, [(np.zeros(shape, np.int32), keywords, "labels")])
        self._watch()
        self.told.setText("Name an organ below the table, press Add, and paint it.")

    @in_words
    def _painted(self, _event: Any = None) -> None:
        self.rest.start()

    @in_words
    def _rested(self) -> None:
        """Keep strokes, but never under one that is being drawn: keeping may renumber what the brush paints."""
        if QApplication.mouseButtons() != Qt.MouseButton.NoButton:
            self.rest.start()
        else:
            self.keep()

    @in_words
    def keep(self) -> None:
        """Save what was painted."""
        self.rest.stop()
        if self.bench.session is not None:
            scan = self.bench.current or ""
            if self.bench.keep_edits():
                self.found.pop(scan, None)
                self._renew()

    @in_words
    def undo(self) -> None:
        """Go back one change."""
        self._step("undo")

    @in_words
    def redo(self) -> None:
        """Take an undone change again."""
        self._step("redo")

    def _step(self, direction: str) -> None:
        self.found.pop(self.bench.current or "", None)
        self.bench.step(direction)

    def _shapes(self) -> Shapes | None:
        from napari.layers import Shapes

        return next((layer for layer in self.bench.layers_of() if isinstance(layer, Shapes)), None)

    @in_words
    def polygons(self) -> None:
        """Take up napari's polygon tool; new polygons bear the name in the box."""
        name = self.name.currentText().strip()
        if not name:
            raise ValueError("the polygons have no name; write or choose the organ's below the table")
        session, scan = self.bench.study(), self.bench.current
        if scan is None:
            raise ValueError("no scan is shown; choose one in the study panel")
        layer = self._shapes()
        if layer is None:
            image = session.scan(scan)
            if "Z" in image.axes:
                raise ValueError(f"{scan} is a volume; draw its organs with the brush")
            flat = place(image, image.frame_shape)
            layer = self.bench.viewer.add_shapes(
                ndim=2, name=f"{scan} polygons", edge_color="yellow", face_color=[0, 0, 0, 0],
                features={ORGAN: np.zeros(0, object)}, units=flat["units"], axis_labels=flat["axis_labels"],
                edge_width=float(flat["scale"][0]), metadata={KEY: {"of": scan}})  # fmt: skip
        layer.feature_defaults = {ORGAN: name}
        self.bench.viewer.layers.selection.active = layer
        layer.mode = "add_polygon"

    @in_words
    def take_polygons(self) -> None:
        """Turn the polygons into organs."""
        layer, scan = self._shapes(), self.bench.current
        if layer is None or scan is None:
            raise ValueError("there are no polygons; press Polygons and draw some")
        self.bench.keep_edits()
        organs = polygons_to_organs(layer.as_layer_data_tuple(), self.bench.study().scan(scan), self.bench.drawn())
        self.bench.take_organs(organs, "polygon")
        self.found.pop(scan, None)
        self.bench.viewer.layers.remove(layer)
        self._watch()
        self._renew()

    # carrying on

    @in_words
    def copy(self) -> None:
        """Copy another scan's organs onto the one that is shown."""
        session, scan, other = self.bench.study(), self.bench.current, self.other.currentText()
        if scan is None or not other:
            raise ValueError("no scan is shown; choose one in the study panel")
        if other == scan:
            raise ValueError(f"{scan} is the scan that is shown; choose another one to copy from")
        self.bench.keep_edits()
        self.bench.work(f"copying from {other}", jobs.copy_to, (session.study.root, session.record(other)),
                        session.study.settings.imaging, {scan: session.source_of(scan)}, self.by.currentData(),
                        event=_Copied(self, f"copy from {other}", []))  # fmt: skip

    @in_words
    def propagate(self) -> None:
        """Carry these organs on to the later scans of the same animal and label."""
        self.bench.keep_edits()
        session, scan = self.bench.study(), self.bench.current
        if scan is None:
            raise ValueError("no scan is shown; choose one in the study panel")
        later = session.later(scan)
        if not later:
            raise ValueError(
                f"no later scan of the same animal, label and view as {scan}; copy from scan to scan instead"
            )
        self.bench.work(f"carrying on from {scan}", jobs.copy_to, (session.study.root, session.record(scan)),
                        session.study.settings.imaging, {name: session.source_of(name) for name in later}, self.by.currentData(),
                        event=_Copied(self, f"propagate from {scan}", []), total=len(later))  # fmt: skip

    @in_words
    def take_copy(self, scan: str, organs: OrganMap | ValueError, action: str, said: list[str]) -> None:
        """Take organs that were copied onto a scan, or say why not."""
        if isinstance(organs, ValueError):
            said.append(f"{scan}: {organs}")
        elif scan == self.bench.current:
            self.bench.take_organs(organs, action)
            said.append(f"{scan}: taken{_odd(organs)}")
        else:
            self.bench.study().set_organs(scan, organs, action)
            self.bench.edited.emit(scan)
            self.bench.measured.emit()
            said.append(f"{scan}: taken{_odd(organs)}")
        self.carried.say(said)

    # who

    @in_words
    def _sign(self) -> None:
        remember(annotator=self.annotator.text().strip())
        if self.bench.session is not None:
            self.bench.session.annotator = self.annotator.text().strip()


def _odd(organs: OrganMap) -> str:
    return f"; {'; '.join(organs.notes)}" if organs.notes else ""


class _Held:
    """Something that a job calls when it is done; it holds the panel weakly, so that a closed one is forgotten."""

    def __init__(self, panel: OrgansPanel) -> None:
        import weakref

        self.panel = weakref.ref(panel)


class _Taken(_Held):
    def __init__(self, panel: OrgansPanel, scan: str, action: str) -> None:
        super().__init__(panel)
        self.scan, self.action = scan, action

    def __call__(self, organs: OrganMap) -> None:
        panel = self.panel()
        if panel is not None:
            panel.take(self.scan, organs, self.action)


class _Copied(_Held):
    def __init__(self, panel: OrgansPanel, action: str, said: list[str]) -> None:
        super().__init__(panel)
        self.action, self.said = action, said

    def __call__(self, found: tuple[str, OrganMap | ValueError]) -> None:
        panel = self.panel()
        if panel is not None:
            panel.take_copy(*found, self.action, self.said)
