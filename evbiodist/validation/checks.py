"""Outside numbers computed again, area by area; a check that breaks is a failed row and never stops the others."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evbiodist.io.scan import FloatArray
from evbiodist.validation import numbers as n

#: Why a difference is tolerated.
ROUNDING, PRINTED, SOLVER, TABLES = (
    "rounding of the computer", "digits that were printed", "tolerance of the solver compared with",
    "digits that charts print, and tables that differ",
)  # fmt: skip


#: Noisy images that show bias and spread.
_DRAWS = 200


@dataclass(frozen=True)
class Check:
    """One number from outside and ours.

    Parameters
    ----------
    area, what : where it belongs and what it is.
    outside, ours : the numbers; None where computing failed.
    tolerance : largest difference that passes, in the same unit; why : where that comes from.
    source : who printed the number, or by what independent way it was computed.
    reason : of a failure to compute, else empty.
    """

    area: str
    what: str
    outside: float | None
    ours: float | None
    tolerance: float
    why: str
    source: str
    reason: str = ""

    @property
    def difference(self) -> float | None:
        """Ours less the outside number."""
        return None if self.ours is None or self.outside is None else self.ours - self.outside

    @property
    def passed(self) -> bool:
        """Whether the difference is within its tolerance."""
        return self.difference is not None and bool(abs(self.difference) <= self.tolerance)


Area = Callable[[], Iterator[Check]]
AREAS: dict[str, Area] = {}


def area(name: str) -> Callable[[Area], Area]:
    """Enter a function into the areas that are checked."""

    def enter(function: Area) -> Area:
        AREAS[name] = function
        return function

    return enter


def run_checks(names: Sequence[str] = (), told: Callable[[str, int, int], None] | None = None) -> list[Check]:
    """Compute every outside number again.

    Parameters
    ----------
    names : areas; all when empty.
    told : called with each area's name, and how many are done of how many.

    Raises
    ------
    ValueError : an area that does not exist.

    Examples
    --------
    >>> [check.passed for check in run_checks(["radioactive decay"])][:2]
    [True, True]
    """
    strange = sorted(set(names) - set(AREAS))
    if strange:
        raise ValueError(f"'{strange[0]}' is no area of validation; known: {', '.join(AREAS)}")
    chosen = list(names) or list(AREAS)
    found: list[Check] = []
    for done, name in enumerate(chosen, 1):
        try:
            found += AREAS[name]()
        except Exception as err:  # whatever breaks on this machine is what validation is for
            found.append(broken(name, err))
        if told is not None:
            told(name, done, len(chosen))
    return found


def broken(name: str, err: Exception) -> Check:
    """Return a failed check in place of what could not be computed."""
    return Check(name, "the check itself", None, None, 0.0, "", "", f"{type(err).__name__}: {err}")


def _within(
    name: str,
    what: str,
    outside: float,
    ours: Any,
    source: str,
    rel: float = 0.0,
    tol: float = 0.0,
    why: str = ROUNDING,
) -> Check:
    tolerance = float(max(rel * abs(outside), tol))
    return Check(name, what, float(outside), float(ours), tolerance, why, source)


@area("non-compartmental analysis")
def _nca() -> Iterator[Check]:
    from evbiodist.kinetics.nca.nca import nca

    name = "non-compartmental analysis"
    for person, values in enumerate(n.INDOMETH):
        found = nca(n.INDOMETH_TIMES, values, dose=25, route="iv_bolus", method="linear", rules="winnonlin")
        for parameter, people in n.INDOMETH_PRINTED.items():
            yield _within(name, f"Indometh, person {person + 1}, {parameter}", people[person], found[parameter].value,
                          n.WINNONLIN, rel=1e-9, why=PRINTED)  # fmt: skip
        usual = nca(n.INDOMETH_TIMES, values, dose=25, route="iv_bolus", rules="winnonlin")
        for parameter, people in n.INDOMETH_PRINTED_LOG.items():
            yield _within(name, f"Indometh by the default rule, person {person + 1}, {parameter}", people[person],
                          usual[parameter].value, n.WINNONLIN_LOG, tol=6e-8, why=PRINTED)  # fmt: skip
    source = "Gibaldi M, Perrier D (1982) Pharmacokinetics, 2nd ed., as computed by NonCompart"
    bolus = nca([0, 0.165, 0.5, 1, 1.5, 3, 5, 7.5, 10], [0, 65.03, 28.69, 10.04, 4.93, 2.29, 1.36, 0.71, 0.38], dose=1e6,
                route="iv_bolus", method="linear", lambda_z_points=3)  # fmt: skip
    for parameter, printed, digits in (
        ("auclast", 47.503075, 5e-7),
        ("aucinf_obs", 48.99319076, 5e-8),
        ("cl", 20410.9997, 2e-4),
    ):
        yield _within(
            name, f"textbook bolus, {parameter}", printed, bolus[parameter].value, source, tol=digits, why=PRINTED
        )


@area("sparse sampling")
def _sparse() -> Iterator[Check]:
    from evbiodist.kinetics.designs.sparse import bailer

    found = bailer(n.SPARSE_TIMES, n.SPARSE)
    source = "R package PK, auc(design = 'ssd') (Jaki T, Wolfsegger MJ (2011) Pharm Stat 10:284), in the tests of PKNCA"
    for what, printed, ours in (("area", 39.4689, found.estimate.value), ("standard error", 6.86584835083522, found.estimate.se),
                                ("degrees of freedom", 2.82631153092225, found.df)):  # fmt: skip
        yield _within("sparse sampling", f"three animals a time, {what}", printed, ours, source, rel=1e-12)


def _misra(b: Any, x: Any) -> Any:
    return b[0] * (1 - np.exp(-b[1] * x))


_CURVES: dict[str, Callable[[Any, Any], Any]] = {
    "Misra1a": _misra,
    "BoxBOD": _misra,
    "DanWood": lambda b, x: b[0] * x ** b[1],
    "Rat42": lambda b, x: b[0] / (1 + np.exp(b[1] - b[2] * x)),
    "MGH17": lambda b, x: b[0] + b[1] * np.exp(-x * b[3]) + b[2] * np.exp(-x * b[4]),
}


@area("nonlinear regression")
def _regression() -> Iterator[Check]:
    from evbiodist.kinetics.fitting.levenberg import covariance, least_squares

    for name, problem in n.STRD.items():
        x, y, curve = np.array(problem["x"]), np.array(problem["y"]), _CURVES[name]

        def residuals(
            b: FloatArray, rows: Any, x: Any = x, y: Any = y, curve: Any = curve
        ) -> tuple[FloatArray, FloatArray]:
            nudged = b.T[:, :, None, None] + 1j * 1e-30 * np.eye(b.shape[1])[:, None, :, None]
            return curve(b.T[:, :, None], x) - y, curve(nudged, x).imag / 1e-30

        found = least_squares(residuals, np.array([problem["start"]]), max_iterations=700)
        errors = np.sqrt(np.diag(covariance(found)[0]))
        for i, (value, error) in enumerate(zip(problem["values"], problem["errors"], strict=True), 1):
            yield _within(
                "nonlinear regression", f"{name}, b{i}", value, found.x[0, i - 1], n.NIST, rel=1e-8, why=PRINTED
            )
            yield _within("nonlinear regression", f"{name}, standard deviation of b{i}", error, errors[i - 1], n.NIST, rel=1e-7,
                          why=PRINTED)  # fmt: skip
        yield _within("nonlinear regression", f"{name}, residual sum of squares", problem["rss"], found.cost[0], n.NIST, rel=1e-8,
                      why=PRINTED)  # fmt: skip


@area("rate graph")
def _rate_graph() -> Iterator[Check]:
    from scipy.integrate import solve_ivp

    from evbiodist.kinetics.models.catalogue import build

    name, times = "rate graph", np.array([0.05, 0.25, 1.0, 3.0, 8.0, 24.0])
    one = build("one_compartment_iv").predict(np.array([2.0, 12.0]), times, 100.0)[0][:, 0]
    for t, ours in zip(times, one, strict=True):
        yield _within(name, f"one compartment at {t:g} h", 100 / 12 * math.exp(-t / 6), ours,
                      "D/V exp(-CL/V t), Gabrielsson & Weiner (2016) ch. 2", rel=1e-12)  # fmt: skip
    cl, v1, q, v2, dose = 3.0, 5.0, 4.0, 20.0, 250.0
    rates = np.array([[-(cl + q) / v1, q / v2], [q / v1, -q / v2]])
    solved = solve_ivp(
        lambda _, a: rates @ a, (0, 24), [dose, 0], t_eval=times, method="DOP853", rtol=1e-12, atol=1e-12
    )
    two = build("two_compartment_iv").predict(np.array([cl, v1, q, v2]), times, dose)[0][:, 0]
    for t, ours, other in zip(times, two, solved.y[0] / v1, strict=True):
        yield _within(name, f"two compartments at {t:g} h", other, ours, "scipy solve_ivp (DOP853, 1e-12) on the same equations",
                      rel=1e-9, why=SOLVER)  # fmt: skip


@area("organ signals")
def _organ_signals() -> Iterator[Check]:
    from scipy import ndimage

    from evbiodist.imaging.estimator import estimate
    from evbiodist.imaging.footprints import psf_footprints, roi_footprints
    from evbiodist.imaging.organs import OrganMap
    from evbiodist.imaging.pieces import VolumeOrgans
    from evbiodist.imaging.volume import quantify_volume
    from evbiodist.io.scan import Camera, Scan

    name, labels, true = "organ signals", np.zeros((48, 56), np.int32), (3.0, 1.0, 2.0)
    labels[12:18, 12:19], labels[18:21, 12:18], labels[15:19, 42:47] = 1, 2, 3
    organs = OrganMap(labels, {1: "liver", 2: "kidney", 3: "spleen"}, "label image")
    sharp = 0.5 + sum(v * (labels == k) for k, v in enumerate(true, 1))
    seen = np.asarray(ndimage.gaussian_filter(sharp, 1.8, mode="nearest", truncate=6.0))
    found = estimate(seen, psf_footprints(organs, 1.8), np.ones(seen.shape))
    for k, organ in enumerate(organs.organs):
        yield _within(name, f"{organ}, blurred by its neighbours", true[k] * float((labels == k + 1).sum()), found.signal[k],
                      "the value the image was made with; Rousset 1998 J Nucl Med 39:904", rel=1e-9)  # fmt: skip
    plain = estimate(sharp, roi_footprints(organs), np.ones(sharp.shape), weighting="uniform")
    for k, organ in enumerate(organs.organs):
        yield _within(name, f"{organ}, plain sum", true[k] * float((labels == k + 1).sum()), plain.signal[k],
                      "sum over the outline less background", rel=1e-10)  # fmt: skip
    random, footprints = np.random.default_rng(1), psf_footprints(organs, 1.8)
    pulls = []
    for _ in range(_DRAWS):
        noisy = estimate(seen + random.normal(0, 0.3, seen.shape), footprints, np.full(seen.shape, 0.09))
        pulls.append((noisy.signal - found.signal) / noisy.se)
    law = f"law of unbiased least squares (Aitken 1936), {_DRAWS} noisy images with a fixed seed"
    yield _within(
        name, "mean error in standard errors", 0.0, np.mean(pulls), law, tol=4 / math.sqrt(_DRAWS), why="chance"
    )
    yield _within(
        name,
        "spread of errors in standard errors",
        1.0,
        np.std(pulls),
        law,
        tol=4 / math.sqrt(2 * _DRAWS),
        why="chance",
    )
    counts = (100 + 50 * np.stack([labels] * 6)).astype(np.uint16)
    volume = Scan("v", None, counts, "ZYX", camera=Camera(1.0, 2.0, 100.0), offset=100.0)
    pieces = quantify_volume(
        volume, VolumeOrgans(np.stack([labels] * 6), {1: "liver", 2: "kidney", 3: "spleen"}, counts.shape)
    )
    for k, organ in enumerate(organs.organs):
        yield _within(name, f"{organ} of a volume in pieces", 50.0 * (k + 1) * 6 * float((labels == k + 1).sum()),
                      pieces.signals.value[k], "sum over the outline less background", rel=1e-12)  # fmt: skip


@area("share of the dose")
def _share() -> Iterator[Check]:
    from evbiodist.imaging.organs import OrganMap
    from evbiodist.imaging.quantify import quantify
    from evbiodist.io.scan import Camera, Scan
    from evbiodist.study.model import ImagingSettings, StandardSettings

    labels = np.zeros((40, 40), np.int32)
    labels[5:9, 5:9], labels[25:35, 25:35] = 1, 2
    counts = np.where(labels == 1, 300.0, np.where(labels == 2, 180.0, 100.0))
    scan = Scan("s", None, counts, "YX", camera=Camera(1.0, 2.0, 100.0), offset=100.0)
    given = ImagingSettings(standard=StandardSettings(organ="standard", pct_of_dose=2.0, pct_of_dose_se=0.1))
    found = quantify(scan, OrganMap(labels, {1: "standard", 2: "liver"}, "label image"), given)
    source = "worked by hand: liver 100 px x 80, standard 16 px x 200 holding 2 +- 0.1 % of the dose"
    yield _within("share of the dose", "liver", 2.0 * 8000 / 3200, found.value[0], source, rel=1e-10)
    yield _within(
        "share of the dose", "shared error of the liver", 0.1 * 8000 / 3200, found.se_systematic[0], source, rel=1e-10
    )


@area("radioactive decay")
def _decay() -> Iterator[Check]:
    from evbiodist.study.constants import isotopes
    from evbiodist.study.corrections import decay_factor
    from evbiodist.study.model import Label

    source = "charts of nuclides (IAEA LiveChart, NNDC NuDat); ours are of ICRP publication 107"
    for isotope, hours in n.HALF_LIVES_H.items():
        yield _within(
            "radioactive decay", f"half-life of {isotope}, h", hours, isotopes()[isotope], source, rel=5e-3, why=TABLES
        )
    hours = isotopes()["18F"]
    for halves in (1, 3):
        factor = decay_factor(Label(kind="radioactive", isotope="18F"), halves * hours)
        yield _within(
            "radioactive decay",
            f"factor after {halves} half-lives of 18F",
            2.0**halves,
            factor,
            "worked by hand",
            rel=1e-12,
        )


@area("agreement of methods")
def _agreement() -> Iterator[Check]:
    from evbiodist.crossval.agreement import agreement
    from evbiodist.crossval.limits import pair_factor
    from evbiodist.kinetics.graphical.york import york

    name = "agreement of methods"
    flow = agreement(n.LARGE, n.MINI)
    for what, printed, ours, digits, source in (
        ("bias of peak flow", -2.1176, flow.bias, 5e-5, "Bland JM, Altman DG (1986) Lancet 1:307, first readings"),
        (
            "standard deviation of differences",
            38.7651,
            flow.sd,
            5e-5,
            "Bland JM, Altman DG (1986) Lancet 1:307, first readings",
        ),
        ("Lin's concordance", 0.942742, flow.ccc, 5e-7, "R package epiR, epi.ccc"),
        ("its lower limit", 0.850492, flow.ccc_low, 5e-7, "R package epiR, epi.ccc"),
        ("its upper limit", 0.978726, flow.ccc_high, 5e-7, "R package epiR, epi.ccc"),
    ):
        yield _within(name, what, printed, ours, source, tol=digits, why=PRINTED)
    line = agreement(n.DEMING_X, n.DEMING_Y, error_ratio=4)
    for what, printed, ours, digits in (("slope", 1.0011942, line.deming_slope, 5e-8), ("lower limit of the slope", 0.5695632,
            line.deming_slope_low, 5e-8), ("intercept", -0.0897449, line.deming_intercept, 6e-6)):  # fmt: skip
        yield _within(
            name,
            f"Deming's line, {what}",
            printed,
            ours,
            "NCSS Statistical Software, chapter 303",
            tol=digits,
            why=PRINTED,
        )
    for df, printed in ((4, 5.0769), (16, 2.8683), (40, 2.4404)):
        yield _within(name, f"exact limits as a pair, {df} degrees of freedom, 95 %", printed, pair_factor(df + 1, 0.95),
                      "Carkeet A (2015) Optom Vis Sci 92:e71", tol=6e-5, why=PRINTED)  # fmt: skip
    both = york(n.YORK_X, n.YORK_Y, np.array(n.YORK_WX, float) ** -0.5, np.array(n.YORK_WY, float) ** -0.5)
    for what, printed, ours in (("slope", -0.48053340745, both.slope), ("intercept", 5.47991022403, both.intercept)):
        yield _within(
            name,
            f"errors in both axes, {what}",
            printed,
            ours,
            "Neri F et al. (1989) J Phys E 22:215",
            tol=5e-12,
            why=PRINTED,
        )


@area("consensus")
def _consensus() -> Iterator[Check]:
    from evbiodist.crossval.consensus import random_effects

    ill, well, ill0, well0 = np.array(n.BCG, dtype=float).T
    ratio = np.log(ill / (ill + well)) - np.log(ill0 / (ill0 + well0))
    se = np.sqrt(1 / ill - 1 / (ill + well) + 1 / ill0 - 1 / (ill0 + well0))
    source = "R package metafor, rma(yi, vi) on dat.bcg"
    found = random_effects(ratio, se, method="REML", hartung_knapp=False)
    for what, printed, ours in (("estimate", -0.7145, found.estimate), ("standard error", 0.1798, found.se),
                                ("tau2", 0.3132, found.tau2), ("Q", 152.2330, found.q)):  # fmt: skip
        yield _within("consensus", f"BCG trials, {what}", printed, ours, source, tol=5e-5, why=PRINTED)
    simple = random_effects(ratio, se, method="DL")
    yield _within(
        "consensus", "BCG trials, tau2 by DerSimonian and Laird", 0.3088, simple.tau2, source, tol=5e-5, why=PRINTED
    )


@area("reading images")
def _reading() -> Iterator[Check]:
    import tifffile

    from evbiodist.io.registry import read_scan

    image = np.arange(60_000, 60_000 + 12 * 10, dtype=np.uint16).reshape(12, 10)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ome.tif"
        tifffile.imwrite(path, image, metadata={"axes": "YX", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "um",
                                                "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "mm"})  # fmt: skip
        scan = read_scan(path)
        counts = np.asarray(scan.counts, dtype=np.float64)
    size = scan.pixel_size_mm or (math.nan, math.nan)
    source = "as tifffile wrote it"
    yield _within(
        "reading images", "sum of an OME-TIFF's pixels", float(image.sum(dtype=np.float64)), counts.sum(), source
    )
    yield _within("reading images", "one of its pixels", float(image[7, 3]), counts[7, 3], source)
    yield _within("reading images", "pixel width, mm", 0.25, size[1], source, rel=1e-12)
    yield _within("reading images", "pixel height, mm", 0.5, size[0], source, rel=1e-12)


def same_bytes(study: Path) -> Iterator[Check]:
    """Run a study with one process and with two and compare every table.

    Parameters
    ----------
    study : study.toml or the folder that holds it.
    """
    from evbiodist.batch.pipeline import run_study
    from evbiodist.study.load import load_study

    area, what = "one and two processes", "whether {} has other bytes (1) or the same (0)"
    with tempfile.TemporaryDirectory() as name:
        tables: list[dict[str, bytes]] = []
        for workers in (1, 2):
            out = Path(name) / str(workers)
            try:
                run_study(load_study(study), out, workers=workers)
            except Exception as err:
                yield broken(area, err)
                return
            tables.append({p.name: p.read_bytes() for p in out.glob("*.csv")})
        for table in sorted(tables[0] | tables[1]):
            differs = tables[0].get(table) != tables[1].get(table)
            yield Check(area, what.format(table), 0.0, float(differs), 0.0, "none", "the same study run twice")
