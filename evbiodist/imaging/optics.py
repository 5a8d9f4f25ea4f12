"""What tissue does to light: absorption and scattering by organ and wavelength, and what follows for depth.

Everything here is diffusion theory; where it does not hold (absorption as strong as scattering) that is said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solveh_banded

from evbiodist.io.scan import FloatArray
from evbiodist.study.constants import tissue_optics

#: Organs without properties of their own take those of the tissue that is most of the body.
REST = "muscle"
#: Internal reflection at the border of tissue (n = 1.4) and air: A of the partial-current boundary (Contini 1997).
BOUNDARY = 2.95
#: How well published properties are known, as a standard deviation of their logarithm.
LOG_SE_ABSORPTION, LOG_SE_SCATTERING = 0.25, 0.15

#: What a camera that takes radiance for isotropic reads of a thin clear slab, over what a drop in air gives.
CLEAR = 2.0


@dataclass(frozen=True)
class Optics:
    """Optical properties of one tissue at one wavelength, per mm.

    Examples
    --------
    >>> round(optics("liver", 780).mu_eff, 3), optics("liver", 460).diffuse
    (0.526, False)
    """

    mu_a: float
    mu_s_reduced: float

    @property
    def mu_eff(self) -> float:
        """Effective attenuation ``sqrt(3 mu_a (mu_a + mu_s'))`` per mm."""
        return float(np.sqrt(3 * self.mu_a * (self.mu_a + self.mu_s_reduced)))

    @property
    def diffusion_mm(self) -> float:
        """Diffusion coefficient ``1 / 3 (mu_a + mu_s')`` in mm."""
        return 1.0 / (3 * (self.mu_a + self.mu_s_reduced))

    @property
    def diffuse(self) -> bool:
        """Whether light scatters more often than it is absorbed, without which diffusion theory fails."""
        return self.mu_a < self.mu_s_reduced


def optics(organ: str, wavelength_nm: float) -> Optics:
    """Return an organ's optical properties, interpolated in their logarithm between tabulated wavelengths.

    Parameters
    ----------
    organ : in the house's spelling; one without a table takes muscle's.
    wavelength_nm : 460 to 780.

    Raises
    ------
    ValueError : a wavelength that the tables do not reach.
    """
    tables = tissue_optics()
    nm, mu_a, mu_s = np.array(tables.get(organ, tables[REST])).T
    if not nm[0] - 20 <= wavelength_nm <= nm[-1] + 40:
        raise ValueError(f"{wavelength_nm:g} nm is outside the tabulated tissue optics ({nm[0]:g} to {nm[-1]:g} nm); "
                         "use the footprint 'psf' or 'roi'")  # fmt: skip
    at = float(np.clip(wavelength_nm, nm[0], nm[-1]))
    a, s = (float(np.exp(np.interp(at, nm, np.log(values)))) for values in (mu_a, mu_s))
    return Optics(a, s)


def has_optics(organ: str) -> bool:
    """Whether an organ has optical properties of its own."""
    return organ in tissue_optics()


def escape_fraction(
    organ: str, thickness_mm: float, emission_nm: float, excitation_nm: float | None = None, *,
    log_mu_a: float = 0.0, steps: int = 200,
) -> float:  # fmt: skip
    """Return what a camera reads of an excised organ, as a share of the same label in a clear drop.

    A slab with label spread evenly; light diffuses, is absorbed, and leaves through both faces. A camera that
    takes radiance for isotropic (as IVIS does) reads a faint, clear slab double, because light leaving a
    surface favours its normal; the number holds that. For fluorescence, excitation enters through the upper face.

    Parameters
    ----------
    organ, emission_nm, excitation_nm : excitation None for bioluminescence.
    thickness_mm : of the slab.
    log_mu_a : shift of the logarithm of absorption, to see what its uncertainty does.
    steps : slices of the slab.

    Returns
    -------
    float : 2 for a thin clear slab, near 0 where only the surface is seen.

    Examples
    --------
    >>> round(escape_fraction("brain", 5.0, 780.0), 2), round(escape_fraction("liver", 5.0, 460.0), 3)
    (1.51, 0.016)
    """
    grown = float(np.exp(log_mu_a))
    out = _slab(optics(organ, emission_nm), grown, thickness_mm, steps)
    source = np.full(steps, 1.0 / steps)
    if excitation_nm is not None:
        lit = optics(organ, excitation_nm)
        total = lit.mu_a * grown + lit.mu_s_reduced
        depth = (np.arange(steps) + 0.5) * thickness_mm / steps
        straight = np.exp(-total * depth)  # light on its way in, before it is first scattered
        entering = lit.mu_s_reduced * straight * thickness_mm / steps
        source = source * (straight + _solve(lit, grown, thickness_mm / steps, entering))
    return 4.0 * float(out @ source)


def _slab(tissue: Optics, grown: float, thickness_mm: float, steps: int) -> FloatArray:
    """Return the share of light that leaves through the upper face, by the depth of its source, shape (steps,)."""
    # the operator is symmetric, so what leaves the top from every slice is the fluence of a source at the top
    top = np.zeros(steps)
    top[0] = _leave(tissue, grown, thickness_mm / steps)
    return _solve(tissue, grown, thickness_mm / steps, top)


def _leave(tissue: Optics, grown: float, step: float) -> float:
    d = 1.0 / (3 * (tissue.mu_a * grown + tissue.mu_s_reduced))
    return d / (2 * BOUNDARY * d + step / 2)


def _solve(tissue: Optics, grown: float, step: float, source: FloatArray) -> FloatArray:
    """Solve the one-dimensional diffusion equation with partial-current boundaries on both faces."""
    n = source.size
    flow = 1.0 / (3 * (tissue.mu_a * grown + tissue.mu_s_reduced)) / step
    band = np.zeros((2, n))
    band[1] = tissue.mu_a * grown * step + 2 * flow
    band[1, [0, -1]] += _leave(tissue, grown, step) - flow
    band[0, 1:] = -flow
    return np.asarray(solveh_banded(band, source))


@dataclass(frozen=True)
class Depth:
    """Depth of a source found from two wavelengths, in mm, with its standard error and a reason when missing."""

    depth_mm: float | None
    se_mm: float | None
    reason: str = ""
    flags: tuple[str, ...] = ()


def depth_from_ratio(
    ratio: float, ratio_se: float, nm: tuple[float, float], *, organ: str = REST, emitted_ratio: float = 1.0,
) -> Depth:  # fmt: skip
    """Find a source's depth from its brightness at two wavelengths, the second of which the tissue absorbs more.

    Light from depth d leaves tissue as ``exp(-mu_eff d) / (1 + 2 A D mu_eff)`` (plane source), so the
    logarithm of the ratio is linear in d.

    Parameters
    ----------
    ratio, ratio_se : brightness at nm[0] over that at nm[1], and its standard error.
    nm : the two wavelengths.
    organ : the tissue above the source.
    emitted_ratio : the same ratio at the source (its spectrum through the two filters).

    Returns
    -------
    Depth : its error holds the ratio's and the optics' uncertainty.

    Examples
    --------
    >>> seen = 0.5 * np.exp(0.9)
    >>> depth_from_ratio(seen, 0.01, (780, 610)).flags
    ()

    Coquoz 2003 / Kuo 2007 (J Biomed Opt 12:024007) use the same relation for point sources.
    """
    if not (ratio > 0 and emitted_ratio > 0):
        return Depth(None, None, f"the ratio of the two bands is {ratio:g}; both bands need signal above noise")
    tissues = [optics(organ, w) for w in nm]
    gap = tissues[1].mu_eff - tissues[0].mu_eff
    if abs(gap) < 0.05:
        return Depth(None, None, f"{nm[0]:g} and {nm[1]:g} nm are attenuated alike, so their ratio tells no depth")
    flags = () if all(t.diffuse for t in tissues) else ("beyond_diffusion",)
    edge = [np.log1p(2 * BOUNDARY * t.diffusion_mm * t.mu_eff) for t in tissues]
    depth = float((np.log(ratio / emitted_ratio) - edge[1] + edge[0]) / gap)
    # mu_eff goes with the root of both properties; the two wavelengths share the tissue, so errors add in the gap
    optics_rel = float(np.hypot(LOG_SE_ABSORPTION, LOG_SE_SCATTERING) / 2)
    se = float(np.hypot(ratio_se / ratio / abs(gap), optics_rel * abs(depth)))
    if depth < -2 * se:
        return Depth(
            None, None, f"the ratio {ratio:g} is one that no depth gives; check the source's own spectrum", flags
        )
    return Depth(max(depth, 0.0), se, "", flags)
