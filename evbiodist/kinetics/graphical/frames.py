"""What graphical analysis and parametric maps stand on: scan frames, and input curves integrated exactly over them.

A frame reports the mean of a curve over its duration, so whatever it is compared with is averaged over it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.models.inputs import SampledCurve
from evbiodist.study.units import to_hours

Floats = NDArray[np.float64]

TIMINGS = ("mean", "mid")


@dataclass(frozen=True, eq=False)
class Frames:
    """The frames of a dynamic scan, in hours after injection.

    Parameters
    ----------
    start_h, end_h : (T,) rising; gaps are allowed, overlaps are not.

    Examples
    --------
    >>> Frames.of([0, 1, 3], [1, 3, 6], unit="min").mid_h.round(4).tolist()
    [0.0083, 0.0333, 0.075]
    """

    start_h: Floats
    end_h: Floats

    @classmethod
    def of(cls, start: ArrayLike, end: ArrayLike, unit: str = "h") -> Frames:
        """Check frame times and convert them to hours.

        Parameters
        ----------
        start, end : (T,) after injection, in `unit` (h, min, s).

        Returns
        -------
        Frames

        Raises
        ------
        ValueError : lists of different lengths, a frame that ends before it starts, or frames that overlap.

        Examples
        --------
        >>> Frames.of([0, 5], [5, 4], unit="min")
        Traceback (most recent call last):
        ...
        ValueError: frame 1 runs from 5 to 4 min, expected an end after its start; give end times, not durations
        """
        hour = to_hours(1.0, unit)
        a, b = np.asarray(start, dtype=np.float64), np.asarray(end, dtype=np.float64)
        if a.ndim != 1 or a.shape != b.shape or not a.size:
            raise ValueError(
                f"start and end have shapes {a.shape} and {b.shape}, expected two lists of one length; "
                "give the start and the end of every frame"
            )
        for k in range(a.size):
            if not b[k] > a[k] or not np.isfinite(b[k] - a[k]):
                raise ValueError(
                    f"frame {k} runs from {a[k]:g} to {b[k]:g} {unit}, expected an end after its start; "
                    "give end times, not durations"
                )
            if k and a[k] < b[k - 1] - 1e-9 * b[k]:
                raise ValueError(
                    f"frame {k} starts at {a[k]:g} {unit}, before frame {k - 1} ends at {b[k - 1]:g} {unit}; "
                    "put the frames in order and remove the overlap"
                )
        return cls(a * hour, b * hour)

    def __len__(self) -> int:
        return len(self.start_h)

    @property
    def duration_h(self) -> Floats:
        """Length of each frame, (T,)."""
        return self.end_h - self.start_h

    @property
    def mid_h(self) -> Floats:
        """Middle of each frame, (T,)."""
        return (self.start_h + self.end_h) / 2

    def steps(self, timing: str = "mean") -> tuple[Floats, Floats]:
        """Return how frame means add up to the integral of their own curve from 0 h.

        Parameters
        ----------
        timing : ``mean`` for the mean over the frame of the integral so far (the earlier frames are exact, within
            the frame the curve is taken as flat, across a gap as a line); ``mid`` for trapezoids between the middles
            of frames, from zero at 0 h, as older programs do.

        Returns
        -------
        tuple : own, passed, each (T,): the integral of frame k is ``sum(passed[:k] * m[:k]) + own[k] * m[k]``.

        Raises
        ------
        ValueError : an unknown timing, or a scan that starts after the injection.
        """
        if timing not in TIMINGS:
            raise ValueError(f"timing is '{timing}', expected 'mean' or 'mid'; write timing='mean'")
        if self.start_h[0] > 0.02 * self.end_h[-1]:
            raise ValueError(
                f"the first frame starts at {self.start_h[0]:g} h, but this method integrates the tissue curve from "
                "0 h; scan from the injection on, or use Patlak's plot"
            )
        if timing == "mid":
            own = np.diff(self.mid_h, prepend=0.0) / 2
            return own, own + np.append(own[1:], 0.0)
        gap = self.start_h - np.append(0.0, self.end_h[:-1])
        return (self.duration_h + gap) / 2, self.duration_h + (gap + np.append(gap[1:], 0.0)) / 2

    def integrate(self, means: Floats, timing: str = "mean") -> Floats:
        """Return the integral from 0 h of curves given as frame means, (..., T), in value times hours.

        Examples
        --------
        >>> Frames.of([0, 1], [1, 3]).integrate(np.array([2.0, 4.0])).tolist()
        [1.0, 6.0]
        """
        own, passed = self.steps(timing)
        before = np.cumsum(means * passed, axis=-1)
        before = np.concatenate([np.zeros_like(before[..., :1]), before[..., :-1]], axis=-1)
        return before + own * means


@dataclass(frozen=True, eq=False)
class InputCurve:
    """A measured input (plasma, serum, blood) as straight lines between samples, integrated without error.

    Parameters
    ----------
    time_h, value : (S,) the first sample at 0 h.

    Examples
    --------
    >>> curve = InputCurve.of([0, 2, 4], [0, 6, 2])
    >>> curve.integral(np.array([2.0, 4.0])).tolist(), curve.mean(Frames.of([0], [4])).tolist()
    ([6.0, 14.0], [3.5])
    """

    time_h: Floats
    value: Floats

    @classmethod
    def of(cls, time: ArrayLike, value: ArrayLike, unit: str = "h") -> InputCurve:
        """Check an input curve and convert its times to hours.

        Parameters
        ----------
        time, value : (S,) time after injection in `unit`, and the values.

        Returns
        -------
        InputCurve

        Raises
        ------
        ValueError : times that do not rise, values that are missing, or a curve that does not start at 0 h.

        Examples
        --------
        >>> InputCurve.of([0.5, 1], [3, 2])
        Traceback (most recent call last):
        ...
        ValueError: the input curve starts at 0.5 h, expected its value at 0 h; add it (0 when a measured rise follows)
        """
        t, v = np.asarray(time, dtype=np.float64), np.asarray(value, dtype=np.float64)
        if t.ndim != 1 or t.shape != v.shape or t.size < 2:
            raise ValueError(
                f"the input curve has times of shape {t.shape} and values of shape {v.shape}, expected two lists of "
                "one length; give at least two samples"
            )
        bad = ~np.isfinite(t) | ~np.isfinite(v)
        if bad.any():
            raise ValueError(
                f"the input curve has time {t[bad][0]} with value {v[bad][0]} at position {int(np.argmax(bad))}, "
                "expected numbers; drop the sample"
            )
        if (np.diff(t) <= 0).any():
            at = int(np.argmax(np.diff(t) <= 0))
            raise ValueError(
                f"the input curve's times do not rise: {t[at]:g} is followed by {t[at + 1]:g}; "
                "sort the samples and average those taken together"
            )
        if t[0] != 0:
            raise ValueError(
                f"the input curve starts at {t[0]:g} {unit}, expected its value at 0 {unit}; "
                "add it (0 when a measured rise follows)"
            )
        return cls(t * to_hours(1.0, unit), v)

    @cached_property
    def curve(self) -> SampledCurve:
        """The same samples as an input of models, whose integrals these are."""
        return SampledCurve(self.time_h, self.value)

    def check_covers(self, time_h: Floats) -> None:
        """Refuse times after the last sample.

        Raises
        ------
        ValueError : the curve ends before a time it is needed at.
        """
        if time_h.max() > self.time_h[-1] * (1 + 1e-9):
            raise ValueError(
                f"the input curve ends at {self.time_h[-1]:g} h, but is needed to {time_h.max():g} h; "
                "leave out the later frames, or extrapolate the curve yourself"
            )

    def at(self, time_h: Floats) -> Floats:
        """Return the value at given hours."""
        self.check_covers(time_h)
        return self.curve.level(time_h[None], False)[0]

    def integral(self, time_h: Floats) -> Floats:
        """Return the integral from 0 h to given hours."""
        self.check_covers(time_h)
        return self.curve.level(time_h[None], True)[0]

    def _second_integral(self, time_h: Floats) -> Floats:
        """Return the integral of the integral: what a compartment that loses nothing has held in all."""
        self.check_covers(time_h)
        return np.asarray(self.curve.answer(np.zeros((1, 1)), time_h[None], True).value[0, :, 0])

    def mean(self, frames: Frames) -> Floats:
        """Return the mean over each frame, (T,)."""
        return (self.integral(frames.end_h) - self.integral(frames.start_h)) / frames.duration_h

    def mean_integral(self, frames: Frames) -> Floats:
        """Return the mean over each frame of the integral from 0 h, (T,)."""
        return (self._second_integral(frames.end_h) - self._second_integral(frames.start_h)) / frames.duration_h


def over_frames(frames: Frames, source: InputCurve | ArrayLike, timing: str) -> tuple[Floats, Floats]:
    """Return an input's value and its integral from 0 h in each frame, (T,) each.

    Parameters
    ----------
    source : an `InputCurve`, or (T,) frame means (of a reference tissue).
    timing : as in `Frames.steps`.

    Raises
    ------
    ValueError : frame means that are not one finite number a frame, or an input that ends too early.
    """
    if timing not in TIMINGS:
        raise ValueError(f"timing is '{timing}', expected 'mean' or 'mid'; write timing='mean'")
    if isinstance(source, InputCurve):
        if timing == "mid":
            return source.at(frames.mid_h), source.integral(frames.mid_h)
        return source.mean(frames), source.mean_integral(frames)
    means = np.asarray(source, dtype=np.float64)
    if means.shape != (len(frames),) or not np.isfinite(means).all():
        raise ValueError(
            f"the reference curve has shape {means.shape}, expected one finite mean for each of the {len(frames)} "
            "frames; give frame means, or an InputCurve of samples"
        )
    return means, frames.integrate(means, timing)


def spelled(unit: str) -> str:
    """Return the unit of an input with %ID per g written out, so that it cancels against %ID."""
    return "pct_id/g" if unit.strip() in {"pct_id_per_g", "%ID/g", "% ID/g", "%id/g"} else unit
