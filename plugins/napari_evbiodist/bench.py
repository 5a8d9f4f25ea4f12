"""What the panels of one viewer share: the study that is open, the scan that is shown, and the work under way."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.qt.threading import create_worker
from napari.utils import progress
from napari.utils.notifications import show_error, show_info, show_warning
from psygnal import Signal

from evbiodist.batch.child import CancelledWorkError, ChildDiedError
from evbiodist.batch.scans import ScanResult
from evbiodist.imaging.organs import OrganMap
from evbiodist.io.scan import Scan
from evbiodist.study.vocabulary import organ_name
from napari_evbiodist import jobs
from napari_evbiodist.converters import KEY, digest_of, feature_names, layer_to_organs, organs_to_layer, scan_to_layers
from napari_evbiodist.preferences import preferences
from napari_evbiodist.session import Session
from napari_evbiodist.view import add_layers

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Image, Labels, Layer

_BENCHES: dict[int, Bench] = {}


@dataclass(eq=False)
class Job:
    """Work under way: how far it is, and how to call it off."""

    title: str
    lane: str
    done: int = 0
    total: int = 0
    doing: str = ""
    running: bool = True
    cancelled: bool = False
    worker: Any = field(default=None, repr=False)
    bar: Any = field(default=None, repr=False)

    def cancel(self) -> None:
        """Call the work off; what was finished is kept."""
        self.cancelled = True
        jobs.lane(self.lane).cancel()


class Bench:
    """State of one viewer that panels read, change through these methods, and hear about by these signals.

    Signals
    -------
    opened : another study, or another table of scans.
    shown : (scan) its layers are in the viewer.
    edited : (scan) its organs were changed and saved.
    measured : more scans have numbers, or numbers are outdated.
    settings_changed : anything in ``session.study.settings``.
    organ_picked : (organ) somebody points at it.
    jobs_changed : work began, went on or ended.
    """

    opened = Signal()
    shown = Signal(str)
    edited = Signal(str)
    measured = Signal()
    settings_changed = Signal()
    organ_picked = Signal(str)
    jobs_changed = Signal()

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = weakref.ref(viewer)
        self.session: Session | None = None
        self.problems: list[Any] = []
        self.missing: list[str] = []
        self.current: str | None = None
        self.organ: str | None = None
        self.why_no_organs = ""
        self.jobs: list[Job] = []
        self.program: Any = None  # the run of the whole study, see the batch panel
        self._wanted: str | None = None
        self._opening: Job | None = None
        jobs.lane("quick").start()
        viewer.layers.events.inserted.connect(self._dropped)
        self._dropped()

    @classmethod
    def of(cls, viewer: Any) -> Bench:
        """Return the bench of a viewer, the same for every panel."""
        viewer = getattr(viewer, "__wrapped__", viewer)
        key = id(viewer)
        if key not in _BENCHES:
            _BENCHES[key] = cls(viewer)
            weakref.finalize(viewer, _BENCHES.pop, key, None)
            window = viewer.window._qt_window
            window.destroyed.connect(lambda: _BENCHES.pop(key, None))
        return _BENCHES[key]

    @property
    def viewer(self) -> Viewer:
        """The viewer; it must still be open."""
        viewer = self._viewer()
        if viewer is None:
            raise RuntimeError("the viewer was closed")
        return viewer

    def study(self) -> Session:
        """Return the open session.

        Raises
        ------
        ValueError : none is open.
        """
        if self.session is None:
            raise ValueError("no study is open; open one, or images, in the study panel")
        return self.session

    # work

    def work(
        self,
        title: str,
        function: Callable[..., Any],
        *args: Any,
        then: Callable[[Any], None] | None = None,
        event: Callable[[Any], None] | None = None,
        failed: Callable[[str], None] | None = None,
        lane: str = "quick",
        total: int = 0,
    ) -> Job:
        """Run a function in another process; the viewer stays alive meanwhile.

        Parameters
        ----------
        title : what the user reads beside the progress bar.
        function, args : importable by name, picklable.
        then : called with the result, in the window's thread.
        event : called with everything that the function gives to its keyword ``tell``, in the window's thread.
        failed : called with the sentence in place of the notification.
        lane : `quick` for what somebody waits for, `long` for what takes more than some seconds.
        total : how many events make the whole, 0 when unknown.
        """
        job = Job(title, lane, total=total)
        job.worker = create_worker(_call, job, function, args, event is not None, _start_thread=False)
        job.bar = progress(total=total, desc=title)

        def heard(what: Any) -> None:
            job.done += 1
            if event is not None:
                self._in_words(event, what)
            job.bar.update(1)  # last: napari's bar lets Qt go on, so the next event, or the end, may come within
            self.jobs_changed.emit()

        def ended(outcome: tuple[Any, BaseException | None]) -> None:
            job.running = False
            job.worker.yielded.disconnect(heard)  # its connections would hold what these functions know for ever
            job.worker.returned.disconnect(ended)
            job.bar.close()
            if job in self.jobs:
                self.jobs.remove(job)
            result, error = outcome
            if error is not None:
                sentence = explain(error)
                if isinstance(error, ChildDiedError):
                    sentence = f"{title}: {sentence}"
                (failed or self.say_error)(sentence) if not isinstance(error, CancelledWorkError) else self.say(
                    f"{title}: {sentence}"
                )
            elif then is not None:
                self._in_words(then, result)
            self.jobs_changed.emit()

        job.worker.yielded.connect(heard)
        job.worker.returned.connect(ended)
        self.jobs.append(job)
        job.worker.start()
        self.jobs_changed.emit()
        return job

    def _in_words(self, call: Callable[[Any], None], result: Any) -> None:
        """Take a result; what goes wrong with it is a sentence, and the window goes on."""
        try:
            call(result)
        except Exception as err:
            self.say_error(explain(err))

    def say(self, text: str) -> None:
        """Tell the user something."""
        show_info(text)

    def say_warning(self, text: str) -> None:
        """Tell the user of something odd."""
        show_warning(text)

    def say_error(self, text: str) -> None:
        """Tell the user what went wrong and what to do."""
        show_error(text)

    def close(self) -> None:
        """Call all work off."""
        for job in list(self.jobs):
            job.cancel()

    # the study

    def open(self, paths: str | Path | Sequence[str | Path], then: Callable[[], None] | None = None) -> Job:
        """Open a study, a result folder or images, and show the first scan; what was painted in the former is kept."""
        self.keep_edits()
        files = [Path(p) for p in ([paths] if isinstance(paths, str | Path) else paths)]

        def take(found: jobs.Opened) -> None:
            self.session, self.problems, self.missing = found.session, found.problems, found.missing
            self.current = self.organ = None
            for layer in self._of_dropped_study():
                self.viewer.layers.remove(layer)
            self.opened.emit()
            rows = found.session.table()
            if rows:
                self.show(rows[0].scan)
            if then is not None:
                then()

        return self.work(f"opening {files[0].name}", jobs.open_study, files, preferences().annotator, then=take)

    def _of_dropped_study(self) -> list[Layer]:
        return [layer for layer in self.viewer.layers if "study" in ours(layer) and "of" not in ours(layer)]

    def _dropped(self, _event: Any = None) -> None:
        """Open the study that somebody dropped on the viewer, whose first scan napari's reader shows meanwhile."""
        found = self._of_dropped_study()
        if found and not (self._opening is not None and self._opening.running):
            self._opening = self.open(ours(found[0])["study"])

    def tell(self, scan: str, **facts: Any) -> None:
        """Say what an image file does not (see `Session.tell`)."""
        session = self.study()
        session.tell(scan, **facts)
        self.problems, self.missing = session.problems(), session.missing()
        self.opened.emit()

    def change_settings(self, **sections: dict[str, Any]) -> None:
        """Change settings as `Session.change_settings` does; numbers that rest on them are outdated."""
        self.keep_edits()
        self.study().change_settings(**sections)
        self.settings_changed.emit()
        self.measured.emit()

    # the scan that is shown

    def show(self, scan: str, then: Callable[[], None] | None = None) -> Job:
        """Read a scan and show it with its organs in place of the one before; of several quick choices the last counts."""
        session = self.study()
        self.keep_edits()
        self._wanted = scan

        def take(found: jobs.Shown) -> None:
            if self._wanted != scan or self.session is not session:
                return
            if found.scan is not None:
                session.hold(scan, found.scan)
            self._put(scan, session.scan(scan), found.levels, found.organs)
            self.current, self.why_no_organs = scan, found.why
            self.shown.emit(scan)
            if then is not None:
                then()

        return self.work(
            f"reading {scan}", jobs.show, session.source_of(scan), session.study.settings.imaging, then=take
        )

    def _put(self, name: str, scan: Scan, levels: list[Scan] | None, organs: OrganMap | None) -> None:
        layers = scan_to_layers(scan, levels)
        if organs is not None:
            layers.append(organs_to_layer(organs, scan))
        for layer in layers:
            layer[1]["metadata"][KEY]["of"] = name
        for layer in [layer for layer in self.viewer.layers if "of" in ours(layer)]:
            self.viewer.layers.remove(layer)
        first = not self.viewer.layers
        signal, *_ = add_layers(self.viewer, layers)
        signal.colorbar.visible = True
        self.viewer.canvas.overlays.scale_bar.visible = scan.pixel_size_mm is not None
        self.viewer.canvas.overlays.text.text = self.caption(name, scan)
        self.viewer.canvas.overlays.text.visible = True
        if first:
            self.viewer.reset_view()

    def caption(self, name: str, scan: Scan) -> str:
        """Return what stands over the picture of a scan: label, animal, time and the unit of its colours."""
        record = next((r for r in self.study().study.scans if r.scan == name), None)
        what = f"{record.label}, {record.subject}, {record.time_h:g} h after dose" if record else name
        return f"{what}; colours in {scan.unit}"

    def layers_of(self, scan: str | None = None) -> list[Layer]:
        """Return the layers of a scan, of the one that is shown when None."""
        return [layer for layer in self.viewer.layers if ours(layer).get("of") == (scan or self.current)]

    def signal_layer(self) -> Image | None:
        """Return the layer that shows the current scan's signal."""
        found = [layer for layer in self.layers_of() if isinstance(ours(layer).get("scan"), Scan)]
        return found[0] if found else None  # type: ignore[return-value]

    def organs_layer(self) -> Labels | None:
        """Return the labels layer of the current scan's organs, which the brush edits."""
        from napari.layers import Labels

        found = [layer for layer in self.layers_of() if isinstance(layer, Labels)]
        return found[0] if found else None

    def put_organs(self, organs: OrganMap) -> Labels:
        """Show organs as those of the current scan, in place of the former; nothing is saved."""
        scan = self.study().scan(self.current or "")
        data, keywords, kind = organs_to_layer(organs, scan)
        keywords["metadata"][KEY]["of"] = self.current
        former = self.organs_layer()
        if former is not None and former.data.shape == data.shape:
            chosen = _renumbered(former, organs)
            if not np.array_equal(former.data, data):  # what stands there already keeps napari's own undo
                former.data = data
                # napari's own undo holds the pixel values of before, which may be other organs now
                mode, former.editable = former.mode, False
                former.editable, former.mode = True, mode
            former.features = keywords["features"]
            former.colormap = keywords["colormap"]
            former.selected_label = chosen
            former.metadata = keywords["metadata"]
            return former
        if former is not None:
            self.viewer.layers.remove(former)
        [added] = add_layers(self.viewer, [(data, keywords, kind)])
        return added  # type: ignore[return-value]

    def drawn(self) -> OrganMap | None:
        """Return the organs as they stand in the labels layer, None without one.

        Raises
        ------
        ValueError : pixel values without a name, a layer that was moved.
        """
        layer = self.organs_layer()
        if layer is None or self.current is None or not np.any(layer.data):
            return None
        return layer_to_organs(layer.as_layer_data_tuple(), self.study().scan(self.current))

    def keep_edits(self, action: str = "paint") -> bool:
        """Save what was painted on the organs since they were last saved; return whether there was anything."""
        layer, session = self.organs_layer(), self.session
        if layer is None or session is None or self.current is None or not painted(layer):
            return False
        self.take_organs(layer_to_organs(layer.as_layer_data_tuple(), session.scan(self.current)), action)
        return True

    def take_organs(self, organs: OrganMap, action: str) -> None:
        """Make organs those of the current scan: saved with their history, shown, and to be measured anew."""
        scan = self.current
        if scan is None:
            raise ValueError("no scan is shown; choose one in the study panel")
        kept = self.study().set_organs(scan, organs, action)
        self.put_organs(kept)
        self.edited.emit(scan)
        self.measured.emit()

    def step(self, direction: str) -> None:
        """Undo or redo the last edit of the current scan's organs; undo first drops painting that cannot be kept."""
        session, scan = self.study(), self.current or ""
        try:
            self.keep_edits()
        except ValueError:
            if direction != "undo":
                raise
            self.put_organs(session.organs(scan))
            self.edited.emit(scan)
            return
        self.put_organs(session.undo(scan) if direction == "undo" else session.redo(scan))
        self.edited.emit(scan)
        self.measured.emit()

    def pick(self, organ: str) -> None:
        """Point at an organ."""
        if organ != self.organ:
            self.organ = organ
            self.organ_picked.emit(organ)

    # numbers

    def measure(self, scans: Sequence[str] | None = None, then: Callable[[], None] | None = None) -> Job | None:
        """Measure what has no numbers yet, all scans or some; `measured` tells of each that is done."""
        session = self.study()
        self.keep_edits()
        works = session.pending(scans)
        if not works:
            if then is not None:
                then()
            return None

        def take(event: tuple[int, ScanResult | BaseException]) -> None:
            position, outcome = event
            if self.session is session:
                session.take(works[position], outcome)
                self.measured.emit()

        done = None if then is None else lambda _: then()
        return self.work("measuring", jobs.measure, works, then=done, event=take, lane="long", total=len(works))


def _call(job: Job, function: Callable[..., Any], args: tuple[Any, ...], listening: bool) -> Iterator[Any]:
    """Run in a thread: wait for the other process, pass on what it tells, return its result or what it raised."""
    import queue
    import threading

    told: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def wait() -> None:
        try:
            tell = (lambda event: told.put(("event", event))) if listening else None
            told.put(
                (
                    "result",
                    (jobs.lane(job.lane).call(function, *args, tell=tell, wanted=lambda: not job.cancelled), None),
                )
            )
        except BaseException as err:  # told in the window's thread
            told.put(("result", (None, err)))

    threading.Thread(target=wait, daemon=True).start()
    while True:
        what, content = told.get()
        if what == "result":
            return content
        yield content


def _renumbered(layer: Labels, organs: OrganMap) -> int:
    """Return the pixel value that the organ under the brush has now: a study's own table may have given it another."""
    value = int(layer.selected_label)
    mine = np.asarray(layer.data) == value
    if organs.labels.shape == mine.shape and mine.any():
        values, counts = np.unique(organs.labels[mine], return_counts=True)
        return int(values[counts.argmax()])
    name = feature_names(layer.features, layer.name).get(value)
    return next((v for v, n in organs.names.items() if name and n == organ_name(name)), value)


def ours(layer: Layer) -> dict[str, Any]:
    """Return what we noted on a layer."""
    return layer.metadata.get(KEY, {})


def painted(layer: Labels) -> bool:
    """Return whether a labels layer differs from the organs that it was made from, in pixels or names."""
    told = ours(layer)
    organs = told.get("organs")
    if not np.any(layer.data):
        return False  # a scan without any organ cannot be kept, and shall not hold anybody back from another scan
    if not isinstance(organs, OrganMap):
        return True
    return told["sha256"] != digest_of(layer.data) or organs.names != feature_names(layer.features, layer.name)


def explain(err: BaseException) -> str:
    """Return an error in words: ours are sentences already, anything else is a fault to report."""
    if isinstance(err, ValueError | ChildDiedError | CancelledWorkError):
        return str(err)
    if isinstance(err, OSError) and err.strerror:
        return f"{Path(str(err.filename or 'file')).name}: {err.strerror}; choose another place or free it"
    return f"this is a fault of evbiodist ({type(err).__name__}: {err}); please report it with what you did"
