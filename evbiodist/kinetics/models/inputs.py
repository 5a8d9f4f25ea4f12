"""What goes into a model: doses and measured curves, and how an exponential mode answers them.

A linear model is a sum of modes exp(a t). Every input therefore only has to tell the response of one mode to it, the
integral of that response over time (frames are means) and the derivative of both with respect to the rate a.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Numbers = NDArray[Any]  # real, or complex where rates of a cyclic model are


#: Below this the closed forms lose digits; so many terms of the series then leave none out.
_SERIES, _TERMS = 0.5, 14
#: From so many modes on, answers to a shared curve are interpolated between Chebyshev nodes, a decade of rates at a time.
_MANY_MODES = 256
_NODES = 28


class Answer(NamedTuple):
    """A mode's response at each time, and its derivative with respect to the mode's rate, (B, T, n)."""

    value: Numbers
    slope: Numbers


class Event(NamedTuple):
    """What happens to an input at a time: an amount at once, and its states set anew or added to."""

    time_h: float
    jump: float
    states: FloatArray
    anew: bool


def phis(z: Numbers, order: int) -> list[Numbers]:
    """Return exp(z) and the functions phi_1..phi_order, phi_k(z) = sum_j z^j / (j + k)!, to full precision.

    Parameters
    ----------
    z : of any shape, real or complex; order : 1 or more.

    Examples
    --------
    >>> [float(f.round(6)) for f in phis(np.array(0.0), 3)]
    [1.0, 1.0, 0.5, 0.166667]

    Hochbruck M, Ostermann A (2010) Acta Numerica 19:209, sec. 2.1.
    """
    z = np.asarray(z)
    small = np.abs(z) < _SERIES
    safe = np.where(small, 1.0, z)
    grown = np.exp(z)
    out = [grown, np.expm1(safe) / safe]
    factorial = 1.0
    for k in range(1, order):
        factorial *= k
        out.append((out[-1] - 1 / factorial) / safe)
    if small.any():
        x = z[small] if z.ndim else z
        # Horner's sum of the highest one, then downwards by phi_k = z phi_(k+1) + 1 / k!, which is stable for small z
        factorials = np.cumprod(np.r_[1.0, np.arange(1.0, order + _TERMS)])
        top = np.full_like(x, 1 / factorials[_TERMS - 1 + order])
        for j in reversed(range(_TERMS - 1)):
            top *= x
            top += 1 / factorials[j + order]
        for k in range(order, 0, -1):
            if z.ndim:
                out[k][small] = top
            else:
                out[k] = top
            top = top * x + 1 / factorials[k - 1]
    return out


@dataclass(frozen=True, eq=False)
class Doses:
    """Amounts given at stated times, at once or at a constant rate.

    Parameters
    ----------
    amount, time_h, duration_h : (D,) or (B, D) for B problems; hours; a duration of 0 is a bolus. A sample taken at
        the very time of a bolus is one just after it. An amount of 0 is no dose.

    Raises
    ------
    ValueError : shapes that do not fit, negative amounts or durations, numbers that are not finite.

    Examples
    --------
    >>> Doses([50, 50], [0, 24]).amount.shape
    (2,)
    """

    amount: FloatArray
    time_h: FloatArray
    duration_h: FloatArray

    def __init__(self, amount: ArrayLike, time_h: ArrayLike = 0.0, duration_h: ArrayLike = 0.0) -> None:
        given = [np.atleast_1d(np.asarray(a, dtype=np.float64)) for a in (amount, time_h, duration_h)]
        try:
            given = [np.array(a) for a in np.broadcast_arrays(*given)]
        except ValueError:
            raise ValueError(f"doses have {', '.join(str(a.shape) for a in given)} amounts, times and durations; "
                             "give one of each for every dose") from None  # fmt: skip
        for name, a, lowest in zip(("amount", "time_h", "duration_h"), given, (0, -np.inf, 0), strict=True):
            if not np.isfinite(a).all() or (a < lowest).any():
                raise ValueError(f"{name} of a dose has {a.tolist()}, expected finite numbers"
                                 + (", 0 or more" if lowest == 0 else ""))  # fmt: skip
            object.__setattr__(self, name, a)

    def take(self, rows: Any) -> Doses:
        """Return the doses of some problems."""
        if self.amount.ndim == 1:
            return self
        return Doses(self.amount[rows], self.time_h[rows], self.duration_h[rows])

    def answer(self, rate: Numbers, t: FloatArray, integral: bool) -> Answer:
        """Return how modes of the given rates (B, n) answer at times (B, T); see the module."""
        amount, start, lasts = (np.atleast_2d(a) for a in (self.amount, self.time_h, self.duration_h))
        value: Numbers = np.zeros((*t.shape, rate.shape[-1]), dtype=rate.dtype)
        slope = np.zeros_like(value)
        for d in range(amount.shape[-1]):
            part = _one_dose(rate, t - start[:, d, None], lasts[:, d, None], integral)
            value += amount[:, d, None, None] * part.value
            slope += amount[:, d, None, None] * part.slope
        return Answer(value, slope)

    def generator(self) -> tuple[FloatArray, FloatArray]:
        """Return G and c of the linear system s' = G s whose c s is the input between its events."""
        return np.zeros((1, 1)), np.ones(1)

    def events(self) -> list[Event]:
        """Return what happens when, for a single problem."""
        found = []
        for amount, start, lasts in zip(
            *(np.ravel(a) for a in (self.amount, self.time_h, self.duration_h)), strict=True
        ):
            rate = np.array([amount / lasts if lasts > 0 else 0.0])
            found.append(Event(start, 0.0 if lasts > 0 else amount, rate, False))
            if lasts > 0:
                found.append(Event(start + lasts, 0.0, -rate, False))
        return found

    def steepness(self, t: FloatArray) -> FloatArray:
        """Return the slope of `level` at each time: none, an infusion is constant."""
        return np.zeros_like(t)

    def level(self, t: FloatArray, integral: bool) -> FloatArray:
        """Return the rate of infusion at each time, (B, T), or what was given until then."""
        amount, start, lasts = (np.atleast_2d(a)[:, None] for a in (self.amount, self.time_h, self.duration_h))
        since = t[..., None] - start
        during = (since >= 0) & (since < lasts)
        length = np.where(lasts > 0, lasts, 1.0)
        if not integral:
            return np.sum(np.where(during, amount / length, 0.0), axis=-1)
        share = np.where(lasts > 0, np.clip(since / length, 0.0, 1.0), (since >= 0).astype(float))
        return np.sum(amount * share, axis=-1)


def _one_dose(rate: Numbers, since: FloatArray, lasts: FloatArray, integral: bool) -> Answer:
    """Return the answer to one unit: the mean over the duration of exp(rate * time since given)."""
    given = since >= 0
    since = np.where(given, since, 0.0)
    during = np.minimum(since, lasts)
    a, r, rate = during[..., None], (since - during)[..., None], rate[:, None, :]
    after = phis(rate * r, 2) if integral else [np.exp(rate * r)]
    if not lasts.any():
        shown = given[..., None]
        if not integral:
            return Answer(np.where(shown, after[0], 0.0), np.where(shown, r * after[0], 0.0))
        return Answer(np.where(shown, r * after[1], 0.0), np.where(shown, r**2 * (after[1] - after[2]), 0.0))
    length = np.where(lasts > 0, lasts, 1.0)
    share = np.where(lasts > 0, during / length, 1.0)[..., None] * given[..., None]
    _, p1, p2, p3 = phis(rate * a, 3)
    if not integral:
        return Answer(share * p1 * after[0], share * (r * p1 + a * (p1 - p2)) * after[0])
    q, q_slope = r * after[1], r**2 * (after[1] - after[2])
    return Answer(share * (a * p2 + p1 * q), share * (a**2 * (p2 - 2 * p3) + a * (p1 - p2) * q + p1 * q_slope))


@dataclass(frozen=True, eq=False)
class SampledCurve:
    """A measured input, straight between its samples, zero before the first and held after the last.

    Parameters
    ----------
    time_h : (M,) hours, rising; value : (M,) or (B, M) for B problems.

    Raises
    ------
    ValueError : fewer than two samples, times that do not rise, shapes that do not fit, values that are not finite.

    Examples
    --------
    >>> SampledCurve([0, 1, 2], [0, 4, 2]).level(np.array([[0.5, 1.5, 9.0]]), integral=False).tolist()
    [[2.0, 3.0, 2.0]]
    """

    time_h: FloatArray
    value: FloatArray

    def __init__(self, time_h: ArrayLike, value: ArrayLike) -> None:
        t, v = np.asarray(time_h, dtype=np.float64), np.asarray(value, dtype=np.float64)
        if t.ndim != 1 or t.size < 2 or v.shape[-1:] != t.shape or v.ndim > 2:
            raise ValueError(f"an input curve has times of shape {t.shape} and values of shape {v.shape}; expected one "
                             "value for each of at least two times")  # fmt: skip
        if not np.isfinite(t).all() or (np.diff(t) <= 0).any():
            raise ValueError("times of an input curve must rise; sort them and average samples of the same time")
        if not np.isfinite(v).all():
            raise ValueError(
                "an input curve has values that are not numbers; drop those samples, the curve is straight between others"
            )
        object.__setattr__(self, "time_h", t)
        object.__setattr__(self, "value", v)

    def take(self, rows: Any) -> SampledCurve:
        """Return the curves of some problems."""
        return self if self.value.ndim == 1 else SampledCurve(self.time_h, self.value[rows])

    def _at(self, t: FloatArray) -> tuple[NDArray[np.intp], FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return per time: segment, time since its start, value there, slope and area until there; (B, T) each."""
        knots, v = self.time_h, np.atleast_2d(self.value)
        slope = np.concatenate([np.diff(v) / np.diff(knots), np.zeros((len(v), 1))], axis=1)
        area = np.concatenate(
            [np.zeros((len(v), 1)), np.cumsum((v[:, 1:] + v[:, :-1]) / 2 * np.diff(knots), 1)], axis=1
        )
        k = np.maximum(np.searchsorted(knots, t, side="right") - 1, 0)
        row = np.zeros((1, 1), np.intp) if len(v) == 1 else np.arange(len(v))[:, None]
        return k, np.maximum(t - knots[k], 0.0), v[row, k], slope[row, k], area[row, k]

    def level(self, t: FloatArray, integral: bool) -> FloatArray:
        """Return the curve at each time, (B, T), or its area until then."""
        _, h, v, slope, area = self._at(t)
        shown = t >= self.time_h[0]
        return np.where(shown, area + v * h + slope * h**2 / 2 if integral else v + slope * h, 0.0)

    def steepness(self, t: FloatArray) -> FloatArray:
        """Return the slope of the curve at each time, (B, T)."""
        return np.where(t >= self.time_h[0], self._at(t)[3], 0.0)

    def generator(self) -> tuple[FloatArray, FloatArray]:
        """Return G and c of the linear system s' = G s whose c s is the input between its events."""
        return np.array([[0.0, 1.0], [0.0, 0.0]]), np.array([1.0, 0.0])

    def events(self) -> list[Event]:
        """Return what happens when, for a single problem."""
        value = np.ravel(self.value)
        slope = np.r_[np.diff(value) / np.diff(self.time_h), 0.0]
        return [Event(t, 0.0, np.array([v, s]), True) for t, v, s in zip(self.time_h, value, slope, strict=True)]

    def answer(self, rate: Numbers, t: FloatArray, integral: bool) -> Answer:
        """Return how modes of the given rates (B, n) answer at times (B, T); see the module."""
        shared = self.value.ndim == 1 and (len(t) == 1 or t.strides[0] == 0)
        if shared and rate.size >= _MANY_MODES and not np.iscomplexobj(rate):
            return self._interpolated(rate, t[0], integral)
        return self._walked(rate, t, integral)

    def _interpolated(self, rate: FloatArray, t: FloatArray, integral: bool) -> Answer:
        """Answer thousands of modes from nodes on fixed decades of rates; the answers are analytic in the rate.

        Barycentric interpolation: Berrut JP, Trefethen LN (2004) SIAM Rev 46:501. With 28 nodes a decade the answers
        of `_walked` come back to about 1e-13.
        """
        flat = np.ravel(rate)
        longest = max(float(t[-1] - self.time_h[0]), 1e-300)
        floor = -6.0 - np.floor(np.log10(longest))  # slower modes than this are walked
        with np.errstate(divide="ignore"):
            log = np.log10(np.maximum(-flat, 0.0))
        decade = np.floor(log)
        inside = (flat < 0) & (decade >= floor) & (decade <= floor + 12)
        value, slope = np.empty((flat.size, t.size)), np.empty((flat.size, t.size))
        node = np.cos((np.arange(_NODES) + 0.5) * np.pi / _NODES)
        weight = (-1.0) ** np.arange(_NODES) * np.sin((np.arange(_NODES) + 0.5) * np.pi / _NODES)
        for d in np.unique(decade[inside]):
            mine = np.flatnonzero(inside & (decade == d))
            rates = -(10.0 ** (d + (node + 1) / 2))
            known = self._walked(rates[None], t[None], integral)
            away = 2 * (log[mine] - d)[:, None] - 1 - node
            hit = away == 0
            w = np.where(hit.any(axis=1, keepdims=True), hit, weight / np.where(hit, 1.0, away))
            w /= w.sum(axis=1, keepdims=True)
            value[mine], slope[mine] = w @ known.value[0].T, w @ known.slope[0].T
        rest = np.flatnonzero(~inside)
        if rest.size:
            part = self._walked(flat[None, rest], t[None], integral)
            value[rest], slope[rest] = part.value[0].T, part.slope[0].T
        shape = (len(rate), rate.shape[1], t.size)
        return Answer(value.reshape(shape).swapaxes(1, 2), slope.reshape(shape).swapaxes(1, 2))

    def _walked(self, rate: Numbers, t: FloatArray, integral: bool) -> Answer:
        """Answer by walking along the samples, each straight piece in closed form."""
        known, knots = np.atleast_2d(self.value), self.time_h
        h = np.diff(knots)
        u, s = known[:, :-1], np.diff(known) / h
        U = np.concatenate(
            [np.zeros((len(u), 1)), np.cumsum((known[:, 1:] + known[:, :-1]) / 2 * h, 1)[:, :-1]], axis=1
        )
        # a column is a segment; the walk along them carries the answer at every knot
        grow, gain, grow_slope, gain_slope = _segment(rate[:, None, :], h[None, :, None], u, s, U, integral)
        value = np.zeros((len(rate), len(knots), rate.shape[-1]), dtype=grow.dtype)
        slope = np.zeros_like(value)
        for m in range(len(h)):
            value[:, m + 1] = grow[:, m] * value[:, m] + gain[:, m]
            slope[:, m + 1] = grow[:, m] * slope[:, m] + grow_slope[:, m] * value[:, m] + gain_slope[:, m]
        k, h_t, v_t, s_t, U_t = self._at(t)
        grow, gain, grow_slope, gain_slope = _segment(rate[:, None, :], h_t[..., None], v_t, s_t, U_t, integral)
        row = np.arange(len(rate))[:, None]
        before, before_slope = value[row, k], slope[row, k]
        shown = (t >= knots[0])[..., None]
        return Answer(np.where(shown, grow * before + gain, 0.0),
                      np.where(shown, grow * before_slope + grow_slope * before + gain_slope, 0.0))  # fmt: skip


def _segment(
    rate: Numbers, h: FloatArray, u: FloatArray, s: FloatArray, U: FloatArray, integral: bool
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Return a straight piece's growth and gain and their derivatives: answer(end) = growth * answer(start) + gain."""
    u, s, U = u[..., None], s[..., None], U[..., None]
    if not integral:
        e, p1, p2, p3 = phis(rate * h, 3)
        return e, h * p1 * u + h**2 * p2 * s, h * e, h**2 * (p1 - p2) * u + h**3 * (p2 - 2 * p3) * s
    e, p1, p2, p3, p4 = phis(rate * h, 4)
    gain = h * p1 * U + h**2 * p2 * u + h**3 * p3 * s
    return e, gain, h * e, h**2 * (p1 - p2) * U + h**3 * (p2 - 2 * p3) * u + h**4 * (p3 - 3 * p4) * s


@dataclass(frozen=True, eq=False)
class Exponentials:
    """An input that is a sum of falling exponentials from a start on: a curve that was fitted.

    Parameters
    ----------
    amplitude, rate_per_h : (K,); the input is sum A exp(-rate (t - start_h)), zero before `start_h`. A rate of 0 is
        a constant input.

    Raises
    ------
    ValueError : shapes that do not fit, negative rates, numbers that are not finite.

    Examples
    --------
    >>> float(Exponentials([8], [0.5]).level(np.array([[2.0]]), integral=False)[0, 0].round(4))
    2.943
    """

    amplitude: FloatArray
    rate_per_h: FloatArray
    start_h: float

    def __init__(self, amplitude: ArrayLike, rate_per_h: ArrayLike, start_h: float = 0.0) -> None:
        a, r = (np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (amplitude, rate_per_h))
        if a.shape != r.shape or a.ndim != 1:
            raise ValueError(f"an input has {a.size} amplitudes and {r.size} rates; give one rate for each amplitude")
        if not (np.isfinite(a).all() and np.isfinite(r).all() and np.isfinite(start_h)) or (r < 0).any():
            raise ValueError("amplitudes and rates of an input must be finite, and rates 0 or more")
        object.__setattr__(self, "amplitude", a)
        object.__setattr__(self, "rate_per_h", r)
        object.__setattr__(self, "start_h", float(start_h))

    def take(self, rows: Any) -> Exponentials:
        """Return the input of some problems: the same for all."""
        return self

    def level(self, t: FloatArray, integral: bool) -> FloatArray:
        """Return the curve at each time, (B, T), or its area until then."""
        since = np.maximum(t - self.start_h, 0.0)[..., None]
        e, p1 = phis(-self.rate_per_h * since, 1)
        return np.where(t >= self.start_h, np.sum(self.amplitude * (since * p1 if integral else e), axis=-1), 0.0)

    def steepness(self, t: FloatArray) -> FloatArray:
        """Return the slope of the curve at each time, (B, T)."""
        since = np.maximum(t - self.start_h, 0.0)[..., None]
        fall = np.sum(-self.rate_per_h * self.amplitude * np.exp(-self.rate_per_h * since), axis=-1)
        return np.where(t >= self.start_h, fall, 0.0)

    def generator(self) -> tuple[FloatArray, FloatArray]:
        """Return G and c of the linear system s' = G s whose c s is the input between its events."""
        return np.diag(-self.rate_per_h), np.ones(len(self.rate_per_h))

    def events(self) -> list[Event]:
        """Return what happens when, for a single problem."""
        return [Event(self.start_h, 0.0, self.amplitude, True)]

    def answer(self, rate: Numbers, t: FloatArray, integral: bool) -> Answer:
        """Return how modes of the given rates (B, n) answer at times (B, T); see the module."""
        since = np.maximum(t - self.start_h, 0.0)[..., None]
        rate = rate[:, None, :]
        value: Numbers = np.zeros((*t.shape, rate.shape[-1]), dtype=rate.dtype)
        slope = np.zeros_like(value)
        for a, r in zip(self.amplitude, self.rate_per_h, strict=True):
            part = _two_rates(rate, -r, since)
            if integral and r > 0:  # the integral of an exponential is the one from 0 to infinity less the rest
                flat = _two_rates(rate, 0.0, since)
                part = Answer((flat.value - part.value) / r, (flat.slope - part.slope) / r)
            elif integral:
                _, _, p2, p3 = phis(rate * since, 3)
                part = Answer(since**2 * p2, since**3 * (p2 - 2 * p3))
            value += a * part.value
            slope += a * part.slope
        return Answer(value, slope)


def _two_rates(rate: Numbers, other: float, since: FloatArray) -> Answer:
    """Return the convolution of two exponentials, and its derivative with respect to the first one's rate."""
    gap = (other - rate) * since
    faster = np.real(gap) <= 0  # the larger exponent is taken out, so that nothing overflows
    _, p1, p2 = phis(np.where(faster, gap, -gap), 2)
    top = np.exp(np.where(faster, rate, other) * since)
    return Answer(since * top * p1, since**2 * top * np.where(faster, p2, p1 - p2))


#: Anything that can be given to a model.
Input = Doses | SampledCurve | Exponentials
