"""Samples and doses of many profiles, checked, and cut into the rows of their dosing intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evbiodist.kinetics.nca.delta import Bools, Floats, like
from evbiodist.kinetics.nca.nca import BLQ_RULES, nca_batch
from evbiodist.kinetics.nca.profiles import refuse
from evbiodist.kinetics.nca.rules import MIN_POINTS, one_of
from evbiodist.kinetics.nca.window import Rows, apply_blq


@dataclass(frozen=True)
class Samples:
    """Checked samples, time first: (T, P)."""

    t: Floats
    c: Floats
    blq: Bools
    se: Floats | None
    n: Floats | None
    lloq: Floats | None

    @classmethod
    def of(
        cls,
        time_h: ArrayLike,
        value: ArrayLike,
        se: ArrayLike | None,
        n: ArrayLike | None,
        lloq: ArrayLike | None,
        below_lloq: ArrayLike | None,
    ) -> Samples:
        """Check arrays of shape (T,) or (P, T)."""
        t, c = (np.atleast_2d(np.asarray(a, dtype=np.float64)) for a in (time_h, value))
        t = np.broadcast_to(t, (len(c), t.shape[1])) if len(t) == 1 else t
        c = like("value", c, t.shape)
        limit = None if lloq is None else like("lloq", lloq, t.shape)
        blq = np.zeros(t.shape, dtype=np.bool_)
        if below_lloq is not None:
            blq |= like("below_lloq", below_lloq, t.shape) > 0
        if limit is not None:
            refuse("lloq", limit, ~(limit > 0), "a number above 0", "leave it out when it is unknown")
            blq |= c < limit
        there = ~np.isnan(t)
        refuse("time_h", t, np.isinf(t), "hours", "correct or drop the row")
        refuse("value", c, there & ~blq & ~np.isfinite(c), "a finite number", "drop the row or mark it below_lloq")
        latest = np.maximum.accumulate(np.where(there, t, -np.inf), axis=1)[:, :-1]
        late = there & np.pad(t[:, 1:] <= latest, ((0, 0), (1, 0)))
        refuse("time_h", t, late, "times that rise", "sort the rows by time and average samples of one time")
        spread = None if se is None else like("se", se, t.shape)
        if spread is not None:
            bad = there & ~blq & ((spread < 0) | np.isinf(spread))
            refuse("se", spread, bad, "0 or more", "give standard errors, NaN where unknown")
            spread = np.where(blq | ~there, 0.0, spread).T
        count = None if n is None else like("n", n, t.shape)
        if count is not None:
            refuse("n", count, there & ~(count >= 1), "at least 1 animal", "leave n out when it is unknown")
            count = count.T
        c = np.where(there & ~blq, c, 0.0)
        return cls(t.T.copy(), c.T.copy(), blq.T, spread, count, None if limit is None else limit.T)

    def scaled(self, factor: Floats) -> Samples:
        """The same with every value, error and limit times (T, P) factors."""
        se = None if self.se is None else self.se * factor
        lloq = None if self.lloq is None else self.lloq * factor
        return replace(self, c=self.c * factor, se=se, lloq=lloq)


@dataclass(frozen=True)
class Doses:
    """Time, size, duration and interval of each dose, (P, D); NaN where there is none or it is not known."""

    start: Floats
    size: Floats
    infusion: Floats
    tau: Floats

    @property
    def count(self) -> int:
        """Number of doses a profile can have."""
        return self.start.shape[1]

    @classmethod
    def of(
        cls,
        dose_time_h: ArrayLike,
        dose: ArrayLike | None,
        infusion_h: ArrayLike | None,
        tau_h: ArrayLike | None,
        samples: Samples,
    ) -> tuple[Doses, tuple[str, ...]]:
        """Check doses and find how long each interval is; the words say what was assumed."""
        given = np.atleast_2d(np.asarray(dose_time_h, dtype=np.float64))
        shape = (samples.t.shape[1], given.shape[1])
        start = np.array(like("dose_time_h", given, shape))
        there = ~np.isnan(start)
        late = np.pad(~(start[:, 1:] > start[:, :-1]) & there[:, 1:], ((0, 0), (1, 0)))
        refuse("dose_time_h", start, late | np.isinf(start), "times that rise", "sort the doses by time")
        none = ~there.any(axis=1)
        if none.any():
            raise ValueError(f"dose_time_h has no dose in profile {np.argmax(none)}, expected at least one; add it")
        size = np.array(like("dose", math.nan if dose is None else dose, shape))
        refuse("dose", size, size <= 0, "a number above 0", "leave it out when it is unknown")
        infusion = np.array(like("infusion_h", math.nan if infusion_h is None else infusion_h, shape))
        refuse("infusion_h", infusion, infusion <= 0, "hours above 0", "leave it out for other routes")
        if tau_h is not None:
            given = np.array(like("tau_h", tau_h, shape[:1]))
            refuse(
                "tau_h",
                given[:, None],
                ~(given > 0)[:, None],
                "hours above 0",
                "leave it out to take it from the doses",
            )
            tau_h = given
        tau, notes = _intervals(start, there, tau_h)
        early = (samples.t < start[:, 0]).any()
        if early:
            notes = (*notes, "samples before the first dose are in no dosing interval and were not used")
        return cls(start, size, infusion, tau), notes


def _intervals(start: Floats, there: Bools, tau_h: ArrayLike | None) -> tuple[Floats, tuple[str, ...]]:
    """Hours to the next dose; after the last one `tau_h`, or what all others have in common."""
    tau = np.full(start.shape, np.nan)
    tau[:, :-1] = np.diff(start, axis=1)
    last = there.sum(axis=1) - 1
    rows = np.arange(len(start))
    if tau_h is not None:
        tau[rows, last] = tau_h
        return tau, ()
    seen = np.where(np.isnan(tau), 0.0, tau)
    low = np.where(np.isnan(tau), np.inf, tau).min(axis=1)
    equal = (last > 0) & (seen.max(axis=1) - low <= 1e-6 * seen.max(axis=1))
    tau[rows[equal], last[equal]] = seen.max(axis=1)[equal]
    return tau, ("the last dosing interval is taken to be as long as the others",) if equal.any() else ()


@dataclass(frozen=True)
class Cut:
    """Each profile's samples by dosing interval: R = P x D rows, intervals of one profile side by side."""

    rows: Rows
    order: NDArray[np.intp]  # (T, R) sample of the profile in each place, T the most that an interval has
    fixed: Floats  # (T, R) value put in place of one below the limit; NaN where the sample counts
    blq: Bools  # (T, R)
    dropped: Bools  # (R,) a value below the limit within the interval was left out
    doses: Doses
    before_first: NDArray[np.intp]  # (P,) sample at the first dose where it is not among the rows; -1 without one
    n: Floats | None  # (T, P)
    line: TerminalLine

    @classmethod
    def of(
        cls,
        s: Samples,
        doses: Doses,
        route: str,
        blq: str | Mapping[str, str],
        steady: bool,
        method: str,
    ) -> Cut:
        """Give each interval its samples, treat those below the limit and choose the terminal lines."""
        d = doses.count
        start, tau = doses.start.reshape(-1), doses.tau.reshape(-1)
        with np.errstate(invalid="ignore"):
            t = np.repeat(s.t, d, axis=1) - start
            t = np.where(np.abs(t - tau) <= 1e-9 * np.abs(tau), tau, t)
            following = np.append(doses.start[:, 1:], np.full((len(doses.start), 1), np.nan), axis=1).reshape(-1)
            member = (t >= 0) & ~(t > np.where(np.isnan(following), np.inf, tau))
        if route == "iv_bolus":  # a sample at the time of a dose is from before it, but for the first of all
            first = (np.arange(len(start)) % d == 0) & (not steady)
            member &= (t > 0) | first
        at_first = (s.t == doses.start[:, 0]) & ~s.blq & (route == "iv_bolus" and steady)
        before_first = np.where(at_first.any(axis=0), at_first.argmax(axis=0), -1)
        below = np.repeat(s.blq, d, axis=1) & member
        limit = None if s.lloq is None else np.repeat(s.lloq, d, axis=1).T
        c = np.repeat(s.c, d, axis=1)
        values, kept = apply_blq(c.T, member.T, below.T, _rules(blq), limit)
        most = max(int(kept.sum(axis=1).max()), 1)  # rows beyond hold nothing in any interval
        order = np.argsort(~kept, axis=1, kind="stable").T[:most]

        def pack(a: NDArray) -> NDArray:  # type: ignore[type-arg]
            return np.take_along_axis(a, order, axis=0)

        with np.errstate(invalid="ignore"):
            dropped = np.any(below & ~kept.T & ~(t > tau), axis=0)
        kept, below = pack(kept.T), pack(below)
        t, c = np.where(kept, pack(t), np.inf), pack(values.T)
        measured = kept & ~below
        line = terminal_line(t, c, measured, route, method)
        rows = Rows(t, kept, measured, line.points, np.where(np.isnan(tau), np.inf, tau))
        return cls(rows, order, np.where(below, c, np.nan), below, dropped, doses, before_first, s.n, line)

    @property
    def inside(self) -> NDArray[np.intp]:
        """Number of measured samples strictly between a dose and the next, (R,)."""
        rows = self.rows
        return (rows.measured & (rows.t > 0) & (rows.t < rows.end)).sum(axis=0)

    @property
    def sampled_ends(self) -> Bools:
        """Intervals with a measured sample at their end, (P, D)."""
        rows = self.rows
        return (rows.measured & (rows.t == rows.end)).any(axis=0).reshape(-1, self.doses.count)

    def some(self, block: slice) -> Cut:
        """The same for some of the profiles."""
        d = self.doses.count
        profiles = range(len(self.doses.start))[block]
        r = slice(profiles.start * d, profiles.stop * d)
        rows = Rows(*(getattr(self.rows, k)[..., r] for k in ("t", "kept", "measured", "points", "end")))
        doses = Doses(*(getattr(self.doses, k)[block] for k in ("start", "size", "infusion", "tau")))
        return replace(
            self,
            rows=rows,
            order=self.order[:, r],
            fixed=self.fixed[:, r],
            doses=doses,
            before_first=self.before_first[block],
        )


def _rules(blq: str | Mapping[str, str]) -> dict[str, str]:
    if isinstance(blq, str):
        one_of("blq", blq, BLQ_RULES)
        return BLQ_RULES[blq]
    for place, rule in blq.items():
        one_of("blq", place, BLQ_RULES["drop"])
        one_of(f"blq[{place}]", rule, ("drop", "zero", "lloq/2"))
    return {**BLQ_RULES["drop"], **blq}


class TerminalLine(NamedTuple):
    """The line through the last values of each row, as `nca_batch` chooses it: (T, R) and (R,)."""

    points: Bools
    adj_r2: Floats
    span: Floats  # hours
    candidates: NDArray[np.intp]  # values above zero it could have taken

    def why_none(self, row: int) -> str:
        """Say why a row has no line."""
        if self.candidates[row] < MIN_POINTS:
            return (
                f"no terminal line: {self.candidates[row]} values above zero after the highest, {MIN_POINTS} are needed"
            )
        return "no terminal line: the last values do not fall"

    def flags(self, row: int, rate: float, min_adj_r2: float) -> set[str]:
        """Return the flags of a line: few half-lives, or values far from it."""
        found = {"poor_lambda_z"} if self.adj_r2[row] < min_adj_r2 else set()
        return found | ({"short_span"} if self.span[row] * rate < 2 * math.log(2) else set())

    def some(self, rows: slice) -> TerminalLine:
        """The same for some of the rows."""
        return TerminalLine(self.points[:, rows], self.adj_r2[rows], self.span[rows], self.candidates[rows])


def terminal_line(t: Floats, c: Floats, measured: Bools, route: str, method: str = "lin-up-log-down") -> TerminalLine:
    """Find the terminal line of each row of (T, R) values, with the samples that `nca_batch` would take."""
    usable = measured & np.isfinite(t)
    table = nca_batch(np.where(usable, t, np.nan).T, np.where(usable, c, 0.0).T, route=route, method=method)
    low, high = table.values["lambda_z_lower"], table.values["lambda_z_upper"]
    place = np.arange(len(t))[:, None]
    peak = np.where(usable, c, -np.inf).argmax(axis=0)
    candidates = (usable & (c > 0) & (place >= peak if route == "iv_bolus" else place > peak)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        points = usable & (c > 0) & (t >= low) & (t <= high)
    return TerminalLine(points, table.values["adj_r2"], high - low, candidates)
