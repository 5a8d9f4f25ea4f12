"""Where the organs of one animal lie, and how much is in each, from all its images together.

The organs stay while the activity changes, so every view, band and time of an animal tells about the same
anatomy. Activities are linear and eliminated (variable projection); places, sizes and tissue optics
move by Gauss-Newton steps under a prior that says how mice differ. The covariance of the activities
holds what is not known of the anatomy.

Golub & Pereyra 1973 (SIAM J Numer Anal 10:413); Laplace approximation for the covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import nnls

from evbiodist.imaging.anatomy import REST, SPREAD, Anatomy, BodyGrid, Place
from evbiodist.imaging.diffusion import Medium, View
from evbiodist.imaging.optics import LOG_SE_ABSORPTION, LOG_SE_SCATTERING, optics
from evbiodist.io.scan import FloatArray

_PLACE = ("along", "across", "up", "log_volume")
#: What the whole animal may differ from the atlas, as standard deviations: all organs along the back in mm, and logarithms.
_WHOLE = {"along_all": 1.5, "log_mu_a": LOG_SE_ABSORPTION / 2**0.5, "log_mu_s": LOG_SE_SCATTERING}
#: The same of each tissue by itself, beyond what it shares with the others.
_ABSORPTION = "absorption"
_OWN_ABSORPTION = LOG_SE_ABSORPTION / 2**0.5
#: Relative error of a footprint even with the right anatomy (skin, fur, bones, diffusion itself), and the area
#: over which such errors go together, in mm2.
_MODEL_REL, _MODEL_AREA_MM2 = 0.10, 25.0
#: Pixels nearer to the outline than this share of the half width are left out: flanks are seen edge on.
_FLANK = 0.85
_STEP_MM = 1.5
#: Step of the forward differences, in standard deviations of the prior.
_STEP_SHARE = 0.5
#: Gain of a step, in units of chi-square, below which the anatomy has settled.
_SETTLED = 0.3


@dataclass(frozen=True, eq=False)
class Frame:
    """One image of the animal, with where in the body each pixel looks.

    Parameters
    ----------
    image, variance : (Y, X) signal of a pixel and its variance.
    s : (Y, X) place along the back, 0 to 1, NaN off the body; u_mm : (Y, X) mm to the animal's right.
    view : `dorsal` or `ventral`.
    time : index of the time point; frames of one time share their activities.
    pixel_mm : edge of a pixel; blur_px : standard deviation of the optics' blur.
    emission_nm, excitation_nm : of this image; excitation None for bioluminescence.
    valid : (Y, X) False where a pixel gets no weight.
    """

    image: FloatArray
    variance: FloatArray
    s: FloatArray
    u_mm: FloatArray
    view: View
    time: int
    pixel_mm: float
    blur_px: float
    emission_nm: float
    excitation_nm: float | None = None
    valid: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class JointFit:
    """Activities and anatomy of one animal.

    Parameters
    ----------
    organs : names, the rest of the body last.
    activity : (T, n) in the images' unit per unit of light in the organ; covariance : (T, n, n). NaN at a time that no
        frame shows.
    anatomy : the animal as inferred; moved : parameter by name with its standard error.
    background : (n_frames,) per pixel.
    chi2_red : per frame, residual variance over the expected (1 when model and its stated error explain the image).
    residual, model : one (Y, X) a frame, signal minus model and the model; NaN where no weight was.
    correlation : (n, n) of the first seen time's activities given the anatomy: what footprints alone cannot tell apart.
    flags, notes : for the report.
    """

    organs: tuple[str, ...]
    activity: FloatArray
    covariance: FloatArray
    anatomy: Anatomy
    moved: dict[str, tuple[float, float]]
    background: FloatArray
    chi2_red: FloatArray
    residual: tuple[FloatArray, ...]
    model: tuple[FloatArray, ...]
    correlation: FloatArray
    objective: float
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def se(self) -> FloatArray:
        """Standard errors, shape (T, n)."""
        return np.sqrt(np.einsum("tii->ti", self.covariance))


@dataclass(frozen=True)
class _State:
    """Parameters by name: `organ.along`, ..., and those of the whole animal; 0 is the atlas."""

    names: tuple[str, ...]
    values: FloatArray
    body: Anatomy

    def __getitem__(self, name: str) -> float:
        return float(self.values[self.names.index(name)]) if name in self.names else 0.0

    def anatomy(self) -> Anatomy:
        places = {}
        for organ in self.body.lobes:
            own = {k: self[f"{organ}.{k}"] for k in _PLACE}
            own["along"] += self["along_all"]
            places[organ] = Place(**own)
        return replace(self.body, places=places)

    def stepped(self, name: str, by: float) -> _State:
        values = self.values.copy()
        values[self.names.index(name)] += by
        return replace(self, values=values)


def infer(frames: Sequence[Frame], body: Anatomy, *, fit_anatomy: bool = True, iterations: int = 6,
          step_mm: float = _STEP_MM) -> JointFit:  # fmt: skip
    """Infer the anatomy and the organ activities of one animal from all its frames.

    Parameters
    ----------
    frames : at least one; those of one `time` share activities, all share the anatomy.
    body : the animal's outline and weight, with organs where the atlas has them.
    fit_anatomy : False keeps the atlas as it is (footprints of another animal).
    iterations : most Gauss-Newton steps.
    step_mm : voxels of the light model.

    Returns
    -------
    JointFit

    Raises
    ------
    ValueError : no frame, or a wavelength that tissue optics do not reach.

    Examples
    --------
    See docs/methods.md and benchmarks/recovery.py; a study runs it with ``footprint = "optical"``.
    """
    if not frames:
        raise ValueError("no image was given; an animal needs at least one frame")
    names = _parameters(body) if fit_anatomy else ()
    sd = np.array([_spread(name) for name in names])
    state = _State(names, np.zeros(len(names)), body)
    solved = _Problem(frames, state, step_mm).solve(sd)
    damping = 1e-3
    for _ in range(iterations if fit_anatomy else 0):
        step = np.clip(solved.step(sd, damping), -1.5 * sd, 1.5 * sd)
        trial = replace(solved.state, values=solved.state.values + step)
        problem = _Problem(frames, trial, step_mm)
        gain = solved.objective - problem.solve(sd, solved.weights).objective
        if gain <= 0:
            damping *= 30
            if damping > 1e3:
                break
            continue
        before, solved, damping = solved, problem.solve(sd), damping / 5
        if gain < _SETTLED:
            solved.slopes = before.slopes  # hardly moved, so the slopes of the step before serve for the covariance
            break
    return solved.result(sd)


def _parameters(body: Anatomy) -> tuple[str, ...]:
    places = [f"{organ}.{what}" for organ in body.lobes for what in _PLACE]
    return (*places, *(f"{organ}.{_ABSORPTION}" for organ in (*body.lobes, REST)), *_WHOLE)


def _spread(name: str) -> float:
    """Return the prior's standard deviation of a parameter."""
    if "." not in name:
        return _WHOLE[name]
    organ, what = name.split(".")
    return _OWN_ABSORPTION if what == _ABSORPTION else float(getattr(SPREAD[organ], what))


@dataclass(frozen=True, eq=False)
class _Change:
    """What a small step of one parameter does: to the organs' sources (voxels, n), the media and their operators."""

    small: float
    sources: FloatArray
    media: dict[float, Medium]
    operators: dict[float, Any]


def _medium(grid: BodyGrid, shares: dict[str, FloatArray], state: _State, nm: float) -> Medium:
    own = {organ: state["log_mu_a"] + state[f"{organ}.{_ABSORPTION}"] for organ in shares}
    return grid.medium(shares, nm, own, state["log_mu_s"])


class _Problem:
    """Footprints of every frame at one state, and their derivatives when asked for."""

    def __init__(self, frames: Sequence[Frame], state: _State, step_mm: float):
        self.frames, self.state, self.step_mm = frames, state, step_mm
        self.body = state.anatomy()
        self.grid = BodyGrid.of(self.body, step_mm)
        self.shares = self.grid.shares(self.body)
        self.fill = self.grid.medium(self.shares, frames[0].emission_nm).fill
        self.organs = (*self.body.lobes, REST)
        self._media: dict[float, Medium] = {}
        self._lit: dict[tuple[float, View], FloatArray] = {}
        self._dimmed: dict[tuple[float, View], FloatArray] = {}
        self.places = [sampling(f, self.grid) for f in frames]
        self.used = [_usable(f, self.body) for f in frames]
        maps = self._maps(self._densities())
        self.footprints = [self._image(i, maps[self._kind(f)]) for i, f in enumerate(frames)]

    @staticmethod
    def _kind(frame: Frame) -> tuple[View, float, float | None]:
        return (frame.view, frame.emission_nm, frame.excitation_nm)

    def _medium(self, nm: float) -> Medium:
        if nm not in self._media:
            self._media[nm] = _medium(self.grid, self.shares, self.state, nm)
        return self._media[nm]

    def _light(self, nm: float, view: View) -> FloatArray:
        if (nm, view) not in self._lit:
            self._lit[nm, view] = self._medium(nm).lit_from(view)
        return self._lit[nm, view]

    def _densities(self) -> FloatArray:
        """Return unit activity per mm3 of every organ, shape (voxels, n)."""
        return np.stack([self._density(self.shares[o]) for o in self.organs], axis=1)

    def _density(self, share: FloatArray) -> FloatArray:
        amount = share[self.grid.inside] * self.fill
        return np.asarray(amount / max(float(amount.sum()), 1e-12) / self.step_mm**3)

    def _maps(self, densities: FloatArray) -> dict[tuple[View, float, float | None], FloatArray]:
        """Return what each kind of camera sees per mm2 of the body's grid, (k, Y, X), of activity densities (voxels, k)."""
        found = {}
        for view, emission, excitation in dict.fromkeys(self._kind(f) for f in self.frames):
            lit = densities if excitation is None else densities * self._light(excitation, view)[:, None]
            medium = self._medium(emission)
            found[view, emission, excitation] = medium.seen(medium.fluence(lit), view)
        return found

    def _image(self, i: int, maps: FloatArray) -> FloatArray:
        """Return maps of the body's grid as images of a frame, shape (k, used pixels)."""
        frame = self.frames[i]
        sampled = (self.places[i] @ maps.reshape(len(maps), -1).T).T.reshape(len(maps), *frame.image.shape)
        blurred = (
            ndimage.gaussian_filter(sampled, (0, frame.blur_px, frame.blur_px), mode="constant") * frame.pixel_mm**2
        )
        return np.asarray(blurred[:, self.used[i]])

    def derivatives(self, activity: FloatArray) -> list[FloatArray]:
        """Return d(model)/d(parameter) of every frame, each (parameters, used pixels).

        To first order a change dA of the light's operator and dq of its sources changes the fluence phi by
        ``A^-1 (dq - dA phi)``, so that the factorisation at hand serves every parameter.
        """
        single = [n for n in self.state.names if n != "along_all"]
        changes = [self._change(name) for name in single]
        kinds = dict.fromkeys((self._kind(f), f.time) for f in self.frames)
        maps = {(kind, time): self._map_changes(kind, activity[time], changes) for kind, time in kinds}
        out = []
        for i, frame in enumerate(self.frames):
            images = self._image(i, maps[self._kind(frame), frame.time])
            rows = dict(zip(single, images, strict=True))
            rows["along_all"] = np.sum([rows[n] for n in rows if n.endswith(".along")], axis=0)
            out.append(np.stack([rows[n] for n in self.state.names]))
        return out

    def _change(self, name: str) -> _Change:
        """Return how sources and media change with a parameter (forward difference)."""
        small = _STEP_SHARE * _spread(name)
        state = self.state.stepped(name, small)
        shares = self.grid.shares(state.anatomy()) if name.split(".")[-1] in _PLACE else self.shares
        wavelengths = {nm for f in self.frames for nm in (f.emission_nm, f.excitation_nm) if nm is not None}
        media = {nm: _medium(self.grid, shares, state, nm) for nm in wavelengths}
        sources = np.stack([self._density(shares[o]) for o in self.organs], axis=1) - self._densities()
        return _Change(small, sources, media, {nm: media[nm].operator() - self._medium(nm).operator() for nm in media})

    def _map_changes(
        self, kind: tuple[View, float, float | None], activity: FloatArray, changes: Sequence[_Change]
    ) -> FloatArray:
        """Return what a camera sees change per unit of each parameter, per mm2 of the body's grid, (parameters, Y, X)."""
        view, emission, excitation = kind
        medium, source = self._medium(emission), self._densities() @ activity
        lit = np.ones(len(source)) if excitation is None else self._light(excitation, view)
        fluence = medium.fluence((source * lit)[:, None])[:, 0]
        right = []
        for change in changes:
            moved = (change.sources @ activity) * lit - change.operators[emission] @ fluence
            right.append(moved)
        rhs = np.stack(right, axis=1)
        if excitation is not None:
            rhs = rhs + source[:, None] * self._light_changes(excitation, view, changes)
        seen = medium.seen(medium.fluence(rhs), view)
        skin = [change.media[emission].seen(fluence[:, None], view)[0] for change in changes]
        seen = seen + np.stack(skin) - medium.seen(fluence[:, None], view)
        return np.asarray(seen / np.array([c.small for c in changes])[:, None, None])

    def _light_changes(self, nm: float, view: View, changes: Sequence[_Change]) -> FloatArray:
        """Return how the exciting light changes in every voxel, (voxels, parameters)."""
        if (nm, view) not in self._dimmed:
            medium = self._medium(nm)
            sources, straight = medium.entering(view)
            diffuse = self._light(nm, view) - straight
            ends = [change.media[nm].entering(view) for change in changes]
            moved = [
                end[0] - sources - change.operators[nm] @ diffuse for end, change in zip(ends, changes, strict=True)
            ]
            self._dimmed[nm, view] = medium.fluence(np.stack(moved, axis=1)) + np.stack(
                [e[1] - straight for e in ends], axis=1
            )
        return self._dimmed[nm, view]

    def solve(self, sd: FloatArray, weights: list[FloatArray] | None = None) -> _Solved:
        """Find the activities under given weights, or under weights of the model itself (two rounds)."""
        fixed = weights is not None
        weights = weights or [
            1.0 / np.maximum(f.variance[u], 1e-300) for f, u in zip(self.frames, self.used, strict=True)
        ]
        solved = self._activities(weights, sd)
        for _ in range(0 if fixed else 3):
            solved = self._activities([self._weight(i, solved) for i in range(len(self.frames))], sd)
        return solved

    def _weight(self, i: int, solved: _Solved) -> FloatArray:
        frame, used = self.frames[i], self.used[i]
        model = solved.activity[frame.time] @ self.footprints[i]
        together = max(_MODEL_AREA_MM2 / frame.pixel_mm**2, 1.0)
        times = len({f.time for f in self.frames if self._kind(f) == self._kind(frame)})
        return np.asarray(1.0 / (frame.variance[used] + together * times * (_MODEL_REL * model) ** 2))

    def _activities(self, weights: list[FloatArray], sd: FloatArray) -> _Solved:
        times = sorted({f.time for f in self.frames})
        n = len(self.organs)
        activity = np.zeros((max(times) + 1, n))
        background = np.zeros(len(self.frames))
        total = float(np.sum((self.state.values / sd) ** 2)) if sd.size else 0.0
        for t in times:
            members = [i for i, f in enumerate(self.frames) if f.time == t]
            design = np.concatenate([np.vstack([self.footprints[i], np.zeros((2 * len(members), self.footprints[i].shape[1]))])
                                     for i in members], axis=1)  # fmt: skip
            start = 0
            for j, i in enumerate(members):
                size = self.footprints[i].shape[1]
                design[n + 2 * j, start : start + size] = 1.0
                design[n + 2 * j + 1, start : start + size] = -1.0  # a background below zero is an offset, not light
                start += size
            y = np.concatenate([self.frames[i].image[self.used[i]] for i in members])
            root = np.sqrt(np.concatenate([weights[i] for i in members]))
            scale = np.sqrt(np.sum((design * root) ** 2, axis=1)) + 1e-300
            q, r = np.linalg.qr((design * root / scale[:, None]).T)
            target = q.T @ (root * y)
            found, _ = nnls(r, target)
            total += float(np.sum((root * (y - (found / scale) @ design)) ** 2))
            activity[t] = found[:n] / scale[:n]
            for j, i in enumerate(members):
                plus, minus = found[n + 2 * j : n + 2 * j + 2] / scale[n + 2 * j : n + 2 * j + 2]
                background[i] = plus - minus
        return _Solved(self, self.state, activity, background, weights, total)


@dataclass(eq=False)
class _Solved:
    """Activities at one state, and the normal equations of everything together."""

    problem: _Problem
    state: _State
    activity: FloatArray
    background: FloatArray
    weights: list[FloatArray]
    objective: float
    slopes: list[FloatArray] | None = None

    def _normal(self) -> tuple[FloatArray, FloatArray]:
        """Return the normal matrix and right side over (activities by time, backgrounds, parameters)."""
        p = self.problem
        n, times, count = len(p.organs), len(self.activity), len(p.frames)
        size = n * times + count + len(self.state.names)
        matrix, right = np.zeros((size, size)), np.zeros(size)
        if self.slopes is None:
            self.slopes = p.derivatives(self.activity) if self.state.names else [np.zeros((0, u.sum())) for u in p.used]
        for i, frame in enumerate(p.frames):
            at = np.r_[
                frame.time * n + np.arange(n), n * times + i, n * times + count + np.arange(len(self.state.names))
            ]
            rows = np.vstack([p.footprints[i], np.ones((1, p.used[i].sum())), self.slopes[i]])
            residual = frame.image[p.used[i]] - self.activity[frame.time] @ p.footprints[i] - self.background[i]
            matrix[np.ix_(at, at)] += (rows * self.weights[i]) @ rows.T
            right[at] += rows @ (self.weights[i] * residual)
        return matrix, right

    def step(self, sd: FloatArray, damping: float) -> FloatArray:
        """Return the Gauss-Newton step of the parameters, activities eliminated."""
        matrix, right = self._normal()
        first = len(right) - len(sd)
        free = self._free(first)
        place = np.arange(first, len(right))
        prior = np.diag((1 + damping) / sd**2)
        a, b, c = matrix[np.ix_(free, free)], matrix[np.ix_(free, place)], matrix[np.ix_(place, place)] + prior
        solve = cho_factor(a + 1e-10 * np.diag(np.diag(a)))
        schur = c - b.T @ cho_solve(solve, b)
        toward = right[place] - self.state.values / sd**2 - b.T @ cho_solve(solve, right[free])
        return np.asarray(np.linalg.solve(schur, toward))

    def _free(self, first: int) -> NDArray[np.int64]:
        """Places of the activities that are not held at zero, and of the backgrounds."""
        values = np.concatenate([self.activity.ravel(), np.ones(first - self.activity.size)])
        seen = np.isin(np.arange(len(self.activity)), [f.time for f in self.problem.frames]).repeat(
            len(self.problem.organs)
        )
        return np.flatnonzero((values > 0) & np.concatenate([seen, np.ones(first - self.activity.size, bool)]))

    def result(self, sd: FloatArray) -> JointFit:
        p = self.problem
        matrix, _ = self._normal()
        n, times, first = len(p.organs), len(self.activity), len(matrix) - len(sd)
        chi2: list[float] = []
        residuals: list[FloatArray] = []
        models: list[FloatArray] = []
        for i, frame in enumerate(p.frames):
            model = self.activity[frame.time] @ p.footprints[i] + self.background[i]
            left = frame.image[p.used[i]] - model
            chi2.append(float(np.mean(left**2 * self.weights[i])))
            for store, values in ((residuals, left), (models, model)):
                image = np.full(frame.image.shape, np.nan)
                image[p.used[i]] = values
                store.append(image)
        scale = np.sqrt(np.diag(matrix))
        scale[scale == 0] = 1.0
        matrix = matrix + np.diag(np.r_[np.zeros(first), 1.0 / sd**2])
        # organs at zero stay in: their error is what the data would allow them to be
        covariance = np.linalg.pinv(matrix / np.outer(scale, scale), rcond=1e-13, hermitian=True) / np.outer(
            scale, scale
        )
        blocks = np.stack([covariance[t * n : (t + 1) * n, t * n : (t + 1) * n] for t in range(times)])
        seen = [f.time for f in p.frames]
        own = slice(min(seen) * n, (min(seen) + 1) * n)
        alone = np.linalg.pinv(matrix[own, own] / np.outer(scale[own], scale[own]), hermitian=True)
        spread = np.sqrt(np.diag(alone))
        activity, unseen = self.activity.copy(), ~np.isin(np.arange(times), seen)
        activity[unseen], blocks[unseen] = np.nan, np.nan
        moved = {name: (float(v), float(np.sqrt(covariance[first + k, first + k])))
                 for k, (name, v) in enumerate(zip(self.state.names, self.state.values, strict=True))}  # fmt: skip
        diffuse = all(optics(o, nm).diffuse for o in p.body.lobes
                      for f in p.frames for nm in (f.emission_nm, f.excitation_nm) if nm)  # fmt: skip
        return JointFit(p.organs, activity, blocks, p.body, moved, self.background, np.array(chi2), tuple(residuals),
                        tuple(models), alone / np.outer(spread, spread), self.objective,
                        () if diffuse else ("beyond_diffusion",))  # fmt: skip


def _usable(frame: Frame, body: Anatomy) -> NDArray[np.bool_]:
    """Pixels of the back (or belly) that face the camera, with a finite image."""
    s = np.nan_to_num(frame.s, nan=-1.0)
    with np.errstate(invalid="ignore"):
        on = (s > 0.06) & (s < 0.95) & (np.abs(frame.u_mm) < _FLANK * body.half_width(s))
    on &= np.isfinite(frame.image) & (frame.variance > 0)
    return np.asarray(on if frame.valid is None else on & frame.valid)


def sampling(frame: Frame, grid: BodyGrid) -> Any:
    """Return the sparse matrix that interpolates a map on the body's grid (Y, X) at the frame's pixels."""
    import scipy.sparse as sp

    across = frame.u_mm if frame.view == "dorsal" else -frame.u_mm
    inside = np.isfinite(frame.s) & np.isfinite(frame.u_mm) & (frame.s > -0.02) & (frame.s < 1.02)
    pixel = np.flatnonzero(inside.ravel())
    y = np.clip((frame.s.ravel()[pixel] - grid.s[0]) / (grid.s[1] - grid.s[0]), 0, grid.s.size - 1.001)
    x = (across.ravel()[pixel] - grid.u[0]) / grid.step_mm
    keep = (x > -1) & (x < grid.u.size)
    pixel, y, x = pixel[keep], y[keep], np.clip(x[keep], 0, grid.u.size - 1.001)
    y0, x0 = y.astype(int), x.astype(int)
    fy, fx = y - y0, x - x0
    rows = np.concatenate([pixel] * 4)
    columns = np.concatenate([(y0 + i) * grid.u.size + x0 + j for i in (0, 1) for j in (0, 1)])
    share = np.concatenate([(fy if i else 1 - fy) * (fx if j else 1 - fx) for i in (0, 1) for j in (0, 1)])
    return sp.csr_matrix((share, (rows, columns)), shape=(frame.s.size, grid.s.size * grid.u.size))
