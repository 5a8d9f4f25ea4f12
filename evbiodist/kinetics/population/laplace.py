"""The likelihood of a population: random effects integrated out about each animal's own best estimate (FOCE).

Value and exact gradient for all animals at once. Random effects are searched in units of their own standard deviation,
so that a standard deviation of zero is an ordinary point and nothing is divided by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.population.population import AnimalModel, FloatArray, IntArray

_LOG_2PI = float(np.log(2 * np.pi))
_STEP = 3e-5  # of search coordinates, for second derivatives from exact first ones
_MOST_INNER = 60
_ARRIVED = 1e-7  # of twice the log-likelihood that a step could still gain; exact Newton steps do the rest
_NEWTON, _FAR = 2, 0.1  # how many, and the longest step that is one of refinement


class Likelihood(NamedTuple):
    """Minus twice the log-likelihood per animal (A,), its gradient (A, P), and where the random effects are.

    Parameters
    ----------
    value, gradient : with respect to the parameters of `Population`; b : (A, q) in standard deviations.
    """

    value: FloatArray
    gradient: FloatArray
    b: FloatArray


class _Terms(NamedTuple):
    """Every row's part in minus twice the log-likelihood and in the information, and derivatives; (B, M) each.

    f : with respect to the prediction; the last axis of `*_tau` is (additive, proportional) logarithmic error.
    """

    value: FloatArray
    f: FloatArray
    ff: FloatArray
    tau: FloatArray
    f_tau: FloatArray
    info: FloatArray
    info_f: FloatArray
    info_tau: FloatArray


@dataclass(frozen=True, eq=False)
class Population:
    """A model with its random effects and residual errors; parameters are one vector phi.

    Parameters
    ----------
    model : the curve of every animal.
    random : (q,) which free parameters differ between animals.
    full : whether their differences may be correlated.
    additive, proportional : (O,) per observed matrix, place of its error among the errors, -1 for none.

    phi is search coordinates of the typical animal (f,), logarithms of the standard deviations between animals (q,),
    unscaled Cholesky entries of their correlation (q (q - 1) / 2, row by row) if `full`, logarithms of the errors (k,).

    Lindstrom & Bates 1990, Biometrics 46:673; Wang 2007, J Pharmacokinet Pharmacodyn 34:575 (FOCE with interaction);
    Almquist, Leander & Jirstrand 2015, J Pharmacokinet Pharmacodyn 42:191 (its exact gradient); Beal 2001, J
    Pharmacokinet Pharmacodyn 28:481 (M3).
    """

    model: AnimalModel
    random: IntArray
    full: bool
    additive: IntArray
    proportional: IntArray

    @cached_property
    def sizes(self) -> tuple[int, int, int, int]:
        """How many typical values, standard deviations, correlations and errors phi holds."""
        q = len(self.random)
        errors = int(max(self.additive.max(initial=-1), self.proportional.max(initial=-1))) + 1
        return len(self.model.free), q, q * (q - 1) // 2 if self.full else 0, errors

    def split(self, phi: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return typical values, log standard deviations, correlation entries and log errors of phi."""
        a, b, c, _ = np.cumsum(self.sizes)
        return phi[:a], phi[a:b], phi[b:c], phi[c:]

    def root(self, phi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return L (q, q), L L' the covariance between animals, and its derivatives by phi's own part of it."""
        _, spread, entries, _ = self.split(phi)
        sd, q = np.exp(spread), len(spread)
        slopes = np.zeros((q + len(entries), q, q))
        unit = np.eye(q)
        if len(entries):
            unit[np.tril_indices(q, -1)] = entries
        length = np.sqrt(np.sum(unit**2, axis=1))
        L = sd[:, None] * unit / length[:, None]
        for k in range(q):
            slopes[k, k] = L[k]
        for j, (row, column) in enumerate(zip(*np.tril_indices(q, -1), strict=True) if len(entries) else ()):
            slopes[q + j, row] = -L[row] * unit[row, column] / length[row] ** 2
            slopes[q + j, row, column] += sd[row] / length[row]
        return L, slopes

    # rows

    def variances(self, f: FloatArray, tau: FloatArray, who: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return the additive and the proportional variance of every row for a prediction of 1, (B, M) each."""
        which = self.model.data.rows.which[who]
        both = []
        for place in (self.additive[which], self.proportional[which]):
            both.append(np.where(place < 0, 0.0, np.exp(2 * np.append(tau, 0.0)[place])))
        return both[0], both[1]

    def terms(self, f: FloatArray, tau: FloatArray, who: IntArray) -> _Terms:
        """Return what the rows of animals `who` say at predictions f (B, M)."""
        rows = self.model.data.rows
        flat, steep = self.variances(f, tau, who)
        V = flat + steep * f**2 + rows.variance[who]
        V_f, V_ff = 2 * steep * f, 2 * steep
        V_tau = np.stack([2 * flat, 2 * steep * f**2], axis=-1)
        V_ftau = np.stack([np.zeros_like(f), 2 * V_f], axis=-1)
        seen = _measured(rows.value[who] - f, V, V_f, V_ff, V_tau, V_ftau)
        below = rows.below[who]
        if below.any():
            hidden = _censored(rows.lloq[who] - f, V, V_f, V_ff, V_tau, V_ftau)
            seen = _Terms(*(np.where(_like(below, s), h, s) for s, h in zip(seen, hidden, strict=True)))
        real = rows.real[who]
        return _Terms(*(np.where(_like(real, s), s, 0.0) for s in seen))

    # each animal's own best estimate

    def inner(self, phi: FloatArray, b: FloatArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Return each animal's most likely random effects (A, q) and whether they were found (A,).

        Parameters
        ----------
        phi : (P,); b : (A, q) where to begin.

        Scoring, damped as by Marquardt, with longer steps while the value falls as if there were no curvature; an animal
        that has arrived is not computed again.
        """
        mu, _, _, tau = self.split(phi)
        L, _ = self.root(phi)
        b, who = b.copy(), np.arange(len(b))
        at = self._scoring(mu, L, tau, b, who)
        damping, found = np.full(len(b), 1e-6), np.zeros(len(b), dtype=np.bool_)
        reach = np.ones(len(b))
        eye = np.eye(b.shape[1])
        for _ in range(_MOST_INNER):
            value, slope, H = at
            step = -np.einsum("aqs,as->aq", inverse(H + damping[who, None, None] * eye), slope)
            gain = -np.einsum("aq,aq->a", step, slope)
            arrived = gain < _ARRIVED * (1 + np.abs(value))
            found[who[arrived]] = np.isfinite(value[arrived])
            go = ~arrived & (damping[who] < 1e8) & np.isfinite(value)
            if not go.any():
                break
            who, step, gain = who[go], step[go], gain[go]
            at = at[0][go], at[1][go], at[2][go]
            trial = self._scoring(mu, L, tau, b[who] + reach[who, None] * step, who)
            better = trial[0] <= at[0]
            b[who] += np.where(better[:, None], reach[who, None] * step, 0.0)
            fall = (at[0] - trial[0]) / (reach[who] * gain)  # a half where the curvature is right
            far = reach[who] > 1
            reach[who] = np.where(better & (fall > 0.7), np.minimum(2 * reach[who], 64.0),
                                  np.where(better & (fall > 0.3), reach[who], 1.0))  # fmt: skip
            less = np.where(far, damping[who], np.maximum(damping[who], 1e-3) * 10)
            damping[who] = np.where(better, np.maximum(damping[who] * 0.1, 1e-9), less)
            for old, new in zip(at, trial, strict=True):
                old[better] = new[better]
        return b, found | (damping >= 1e8)

    def _scoring(
        self, mu: FloatArray, L: FloatArray, tau: FloatArray, b: FloatArray, who: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return half of the inner objective (B,), its slope (B, q) and a curvature (B, q, q) to step by."""
        with np.errstate(all="ignore"):
            _, df, t = self._at(mu, L, tau, b, who)
            own = np.einsum("rq,arm->aqm", L, df[:, self.random])
            value = 0.5 * (t.value.sum(axis=1) + np.sum(b**2, axis=1))
            slope = 0.5 * np.einsum("am,aqm->aq", t.f, own) + b
            # what the value itself says is more than expected where it lies far off; less would overshoot
            H = np.einsum("am,aqm,asm->aqs", np.fmax(t.info, 0.5 * t.ff), own, own) + np.eye(b.shape[1])
        bad = ~(np.isfinite(value) & np.isfinite(slope).all(axis=1) & np.isfinite(H).all(axis=(1, 2)))
        value[bad], slope[bad], H[bad] = np.inf, 0.0, np.eye(b.shape[1])
        return value, slope, H

    def linear_information(self, phi: FloatArray) -> FloatArray:
        """Return what variances (all of phi after the typical values) could be known from, by the linearised model.

        Half the trace of products of V^-1 dV, V the covariance of an animal's values about the typical curve.
        """
        mu, _, _, tau = self.split(phi)
        L, L_slopes = self.root(phi)
        who = np.arange(len(self.model.data.animals))
        f, df = self.model.predict(np.repeat(mu[None], len(who), axis=0), who)
        rows = self.model.data.rows
        flat, steep = self.variances(f, tau, who)
        J = np.where(rows.real[:, None], df[:, self.random], 0.0)
        own = np.where(rows.real, flat + steep * f**2 + rows.variance, 1.0)
        V = J.swapaxes(1, 2) @ (L @ L.T) @ J + own[:, None, :] * np.eye(own.shape[1])
        between = [J.swapaxes(1, 2) @ (d @ L.T + L @ d.T) @ J for d in L_slopes]
        within = []
        for k in range(len(tau)):
            mine = 2 * (flat * (self.additive == k)[rows.which] + steep * f**2 * (self.proportional == k)[rows.which])
            within.append((mine * rows.real)[:, None, :] * np.eye(own.shape[1]))
        weight = inverse(V)
        parts = [weight @ d for d in between + within]
        found = [[0.5 * float(np.einsum("aij,aji->", a, b)) for b in parts] for a in parts]
        return np.array(found).reshape(len(parts), len(parts))

    # the whole

    def likelihood(self, phi: FloatArray, b: FloatArray | None = None) -> Likelihood:
        """Return minus twice the log-likelihood of every animal with its exact gradient.

        Parameters
        ----------
        phi : (P,); b : (A, q) random effects to begin with; 0 when not given.
        """
        crowd = len(self.model.data.animals)
        b, found = self.inner(phi, np.zeros((crowd, len(self.random))) if b is None else b)
        mu, _, _, tau = self.split(phi)
        L, L_slopes = self.root(phi)
        who, r = np.arange(crowd), self.random
        with np.errstate(all="ignore"):
            for _ in range(_NEWTON):
                u, df, t = self._at(mu, L, tau, b, who)
                bend = self._second(u, who)
                b = b - _refinement(t, df[:, r], bend[:, r][:, :, r], L, b)
            _, df, t = self._at(mu, L, tau, b, who)
            G = np.einsum("am,arm,asm->ars", t.info, df[:, r], df[:, r])
            M = np.eye(len(r)) + L.T @ G @ L
            value = t.value.sum(axis=1) + np.sum(b**2, axis=1) + np.linalg.slogdet(M)[1]
            gradient = self._gradient(t, df, bend, b, L, L_slopes, G, M, tau)
        good = found & np.isfinite(value) & np.isfinite(gradient).all(axis=1)
        return Likelihood(np.where(good, value, np.inf), np.where(good[:, None], gradient, np.nan), b)

    def _at(
        self, mu: FloatArray, L: FloatArray, tau: FloatArray, b: FloatArray, who: IntArray
    ) -> tuple[FloatArray, FloatArray, _Terms]:
        """Return search coordinates, slopes of the predictions and the rows' terms of animals `who` at b."""
        u = np.repeat(mu[None], len(who), axis=0)
        u[:, self.random] += b @ L.T
        f, df = self.model.predict(u, who)
        return u, df, self.terms(f, tau, who)

    def _second(self, u: FloatArray, who: IntArray) -> FloatArray:
        """Return second derivatives (A, f, f, M) of the predictions, from exact first ones on both sides."""
        size = u.shape[1]
        shift = _STEP * np.concatenate([np.eye(size), -np.eye(size)])
        moved = (u[None] + shift[:, None]).reshape(-1, size)
        df = self.model.predict(moved, np.tile(who, 2 * size))[1].reshape(2, size, len(u), size, -1)
        bend: FloatArray = ((df[0] - df[1]) / (2 * _STEP)).swapaxes(0, 1)
        return bend

    def _gradient(
        self, t: _Terms, df: FloatArray, bend: FloatArray, b: FloatArray, L: FloatArray, L_slopes: FloatArray,
        G: FloatArray, M: FloatArray, tau: FloatArray,
    ) -> FloatArray:  # fmt: skip
        """Return the gradient (A, P); the best random effects move with phi (implicit function theorem)."""
        r = self.random
        LM = L @ inverse(M)
        pull = np.einsum("ars,asm->arm", LM @ L.T, df[:, r])
        weight = np.einsum("arm,arm->am", df[:, r], pull)
        a = np.einsum("am,akm->ak", t.f, df)
        curve = np.einsum("am,akm,alm->akl", t.ff, df, df) + np.einsum("am,aklm->akl", t.f, bend)
        of_det = np.einsum("am,akm->ak", t.info_f * weight, df) + 2 * np.einsum(
            "am,akrm,arm->ak", t.info, bend[:, :, r], pull
        )
        bowl = L.T @ curve[:, r][:, :, r] @ L + 2 * np.eye(len(r))
        w = np.einsum("aqs,as->aq", inverse(bowl), of_det[:, r] @ L)
        move = w @ L.T
        by_mu = a + of_det - np.einsum("akr,ar->ak", curve[:, :, r], move)
        by_root = by_mu[:, r, None] * b[:, None, :] - a[:, r, None] * w[:, None, :] + 2 * G @ LM
        along = np.einsum("arm,ar->am", df[:, r], move)
        by_row = t.tau + t.info_tau * weight[..., None] - t.f_tau * along[..., None]
        which = self.model.data.rows.which
        by_tau = np.zeros((len(b), len(tau)))
        for side, place in enumerate((self.additive[which], self.proportional[which])):
            for k in range(len(tau)):
                by_tau[:, k] += np.sum(np.where(place == k, by_row[..., side], 0.0), axis=1)
        return np.concatenate([by_mu, np.einsum("ars,krs->ak", by_root, L_slopes), by_tau], axis=1)


def inverse(matrices: FloatArray) -> FloatArray:
    """Return inverses of symmetric matrices (..., q, q); of one singular to rounding, in the directions it has.

    Examples
    --------
    >>> inverse(np.array([[[2.0]], [[0.0]]])).ravel().tolist()
    [0.5, 0.0]
    """
    try:
        return np.asarray(np.linalg.inv(matrices))
    except np.linalg.LinAlgError:
        finite = np.isfinite(matrices).all(axis=(-1, -2), keepdims=True)
        return np.where(finite, np.linalg.pinv(np.where(finite, matrices, 0.0), hermitian=True), np.nan)


def _refinement(t: _Terms, df: FloatArray, bend: FloatArray, L: FloatArray, b: FloatArray) -> FloatArray:
    """Return the exact Newton step (A, q) of the random effects, 0 where it is none of refinement."""
    curve = np.einsum("am,aqm,asm->aqs", t.ff, df, df) + np.einsum("am,aqsm->aqs", t.f, bend)
    H = L.T @ curve @ L + 2 * np.eye(b.shape[1])
    slope = np.einsum("am,aqm->aq", t.f, df) @ L + 2 * b
    solid = np.isfinite(H).all(axis=(1, 2)) & np.isfinite(slope).all(axis=1)
    solid[solid] = (np.linalg.eigvalsh(H[solid]) > 0).all(axis=1)
    step = np.zeros_like(b)
    step[solid] = np.einsum("aqs,as->aq", inverse(H[solid]), slope[solid])
    return np.where((np.abs(step) < _FAR).all(axis=1, keepdims=True), step, 0.0)


def _like(mask: NDArray[np.bool_], array: FloatArray) -> NDArray[np.bool_]:
    return mask if array.ndim == mask.ndim else mask[..., None]


def _measured(
    r: FloatArray, V: FloatArray, V_f: FloatArray, V_ff: FloatArray, V_tau: FloatArray, V_ftau: FloatArray
) -> _Terms:
    """Return the terms of a value with residual r: normal, with a variance that follows the prediction."""
    by_V = 1 / V - r**2 / V**2
    by_VV = -1 / V**2 + 2 * r**2 / V**3
    wide = [x[..., None] for x in (r, V, V_f, by_V, by_VV)]
    r_, V_, V_f_, by_V_, by_VV_ = wide
    return _Terms(
        value=r**2 / V + np.log(V) + _LOG_2PI,
        f=-2 * r / V + V_f * by_V,
        ff=2 / V + 4 * r * V_f / V**2 + V_ff * by_V + V_f**2 * by_VV,
        tau=V_tau * by_V_,
        f_tau=2 * r_ * V_tau / V_**2 + V_ftau * by_V_ + V_f_ * by_VV_ * V_tau,
        info=1 / V + 0.5 * (V_f / V) ** 2,
        info_f=-V_f / V**2 + V_f * V_ff / V**2 - V_f**3 / V**3,
        info_tau=-V_tau / V_**2 + V_f_ * V_ftau / V_**2 - V_f_**2 * V_tau / V_**3,
    )


def _censored(
    r: FloatArray, V: FloatArray, V_f: FloatArray, V_ff: FloatArray, V_tau: FloatArray, V_ftau: FloatArray
) -> _Terms:
    """Return the terms of a value known to be below a limit, r the limit less the prediction (M3)."""
    from scipy.special import log_ndtr

    s = np.sqrt(V)
    z = r / s
    log_share = log_ndtr(z)
    k = np.exp(-0.5 * z**2 - 0.5 * _LOG_2PI - log_share)  # slope of the log-probability
    c = k * (k + z)  # minus its curvature
    c_z = k * (1 - c) - c * (k + z)
    z_f = -1 / s - z * V_f / (2 * V)
    z_ff = V_f / (2 * V * s) - z_f * V_f / (2 * V) - z * (V_ff / (2 * V) - V_f**2 / (2 * V**2))
    k_, c_, c_z_, z_, z_f_, V_, V_f_ = (x[..., None] for x in (k, c, c_z, z, z_f, V, V_f))
    z_tau = -z_ * V_tau / (2 * V_)
    z_ftau = V_tau / (2 * V_ * np.sqrt(V_)) - z_tau * V_f_ / (2 * V_)
    z_ftau = z_ftau - z_ * (V_ftau / (2 * V_) - V_f_ * V_tau / (2 * V_**2))
    return _Terms(
        value=-2 * log_share,
        f=-2 * k * z_f,
        ff=2 * c * z_f**2 - 2 * k * z_ff,
        tau=-2 * k_ * z_tau,
        f_tau=2 * c_ * z_f_ * z_tau - 2 * k_ * z_ftau,
        info=c * z_f**2,
        info_f=c_z * z_f**3 + 2 * c * z_f * z_ff,
        info_tau=c_z_ * z_tau * z_f_**2 + 2 * c_ * z_f_ * z_ftau,
    )
