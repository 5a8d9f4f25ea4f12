"""The planar atlas: where each organ of the digital mouse lies under the outline of a real one, and how surely.

The atlas is laid into the body's own outline (snout to rump, flank to flank). Organs differ between animals,
so the answer is a probability per organ and pixel; organs whose light cannot be told apart are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from evbiodist.imaging.anatomy import (
    HALF_HEIGHT_MM,
    HALF_WIDTH_MM,
    LENGTH_MM,
    ORGANS,
    REFERENCE_G,
    SPREAD,
    Anatomy,
    BodyGrid,
    Place,
)
from evbiodist.imaging.diffusion import View
from evbiodist.imaging.joint import Frame, infer, sampling
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.pose import BodyPose, find_pose
from evbiodist.imaging.segment import segment_body
from evbiodist.io.scan import FloatArray, Scan

_STEP_MM = 1.5
#: |correlation| of two organs' estimates from which they are not resolvable.
_COLLINEAR = 0.9
#: Bodies whose measured size is outside this range of the reference mouse are not mice that the atlas knows.
_SIZE = (0.6, 1.6)


def body_of(pose: BodyPose, pixel_mm: float, weight_g: float | None = None) -> Anatomy:
    """Return the atlas animal in a real one's outline.

    Parameters
    ----------
    pose : of the animal; pixel_mm : edge of a pixel of its grid.
    weight_g : gives organ sizes and body height; without it they follow from the outline.

    Raises
    ------
    ValueError : an outline that is no mouse's.

    Examples
    --------
    >>> from evbiodist.imaging.anatomy import WIDTH_PROFILE
    >>> line = np.column_stack([np.linspace(0, 88, 101), np.zeros(101)])
    >>> half = np.interp(np.linspace(0, 1, 101), *np.array(WIDTH_PROFILE).T)[:, None] * [14.0, 14.0]
    >>> mouse = body_of(BodyPose("animal_1", line, half, 88.0, 1.0, 0.0), 1.0)
    >>> round(mouse.length_mm), round(mouse.half_width_mm), round(mouse.weight_g)
    (88, 14, 22)
    """
    half = pose.half_width_px.mean(axis=1) * pixel_mm
    # the widest stretch, not the widest place: a leg is no flank
    widest, length = float(np.quantile(half, 0.95)), pose.length_px * pixel_mm
    for name, found, usual in (("length", length, LENGTH_MM), ("width", 2 * widest, 2 * HALF_WIDTH_MM)):
        if not _SIZE[0] * usual < found < _SIZE[1] * usual:
            raise ValueError(f"{pose.animal} measures {found:.0f} mm in {name}, a mouse about {usual:.0f} mm; check the "
                             "outline and pixel_size_mm, or use the footprint 'psf' with a label image")  # fmt: skip
    weight = weight_g or REFERENCE_G * (length / LENGTH_MM) * (widest / HALF_WIDTH_MM) ** 2
    height = HALF_HEIGHT_MM * (weight / REFERENCE_G) ** (1 / 3)
    at = np.linspace(0, 1, len(half))[::5]
    profile = tuple((float(s), float(min(w / widest, 1.1))) for s, w in zip(at, half[::5], strict=True))
    return Anatomy(length, widest, height, weight, width_profile=profile)


def place_on(pose: BodyPose, shape: tuple[int, int], pixel_mm: float) -> tuple[FloatArray, FloatArray]:
    """Return body coordinates of an image's pixels: s, and u in mm to the right of the heading seen in the image."""
    s, left = pose.coordinates(shape)
    return s, -left * pixel_mm


def segment_atlas(
    scan: Scan,
    bodies: OrganMap | None = None,
    animal: str = "animal_1",
    *,
    view: View = "dorsal",
    weight_g: float | None = None,
    draws: int = 48,
    seed: int = 0,
) -> OrganMap:
    """Lay the planar organ atlas into an animal's outline.

    Parameters
    ----------
    scan : with its pixel size; emission and excitation of its band, where known, say which organs are resolvable.
    bodies : outlines of the animals on the scan's grid; found by `segment_body` when None.
    animal : which one; view : the side that the camera sees.
    weight_g : of the animal.
    draws, seed : of organ places, from how much mice differ.

    Returns
    -------
    OrganMap : `fractions` hold the probability of each organ to lie under each pixel; a pixel's label is its most
        probable organ where that is at least one half; `unresolved` names pairs of organs whose light overlaps
        too much; `confidence` is the highest probability that each organ reaches, less where the head is not sure.

    Raises
    ------
    ValueError : no pixel size, no animal, or an outline that is no mouse's.

    Examples
    --------
    >>> from evbiodist.phantom.body import DigitalAnimal
    >>> from evbiodist.imaging.anatomy import Anatomy
    >>> mouse, tail = DigitalAnimal(Anatomy()).silhouette((120, 60), 1.0)
    >>> scan = Scan("stage", None, np.zeros((120, 60)), "YX", (1.0, 1.0))
    >>> atlas = segment_atlas(scan, OrganMap(mouse.astype(np.int32), {1: "animal_1"}, "drawn"))
    >>> rows = np.argwhere(atlas.mask("brain"))[:, 0]
    >>> bool(25 < rows.mean() < 37)
    True
    """
    if scan.pixel_size_mm is None:
        raise ValueError(f"{scan.name} does not say its pixel size, without which an atlas has no size; "
                         "give pixel_size_mm in scans.csv")  # fmt: skip
    bodies = (bodies or segment_body(scan)).resized(scan.plane_shape)
    pixel = scan.pixel_size_mm[1]
    pose = find_pose(bodies, animal, scan)
    body = body_of(pose, pixel, weight_g)
    s, u = place_on(pose, scan.plane_shape, pixel)
    frame = Frame(np.zeros(scan.plane_shape), np.ones(scan.plane_shape), s, u, view, 0, pixel, 0.0, 0.0)
    probability = _probability(frame, body, draws, seed) * bodies.mask(animal)
    best = probability.argmax(axis=0)
    labels = np.where(probability.max(axis=0) >= 0.5, best + 1, 0).astype(np.int32)
    for i, layer in enumerate(probability, 1):
        if not (labels == i).any():  # an organ that is nowhere the most probable keeps its best pixel
            labels.flat[int(layer.argmax())] = i
    confidence = {o: float(p.max()) * pose.head_confidence for o, p in zip(ORGANS, probability, strict=True)}
    pairs = _unresolved(scan, frame, body)
    notes = (*pose.notes, *(f"{a} and {b} are not resolvable in this view: report them together or add a view or band"
                            for a, b in pairs))  # fmt: skip
    return OrganMap(labels, dict(enumerate(ORGANS, 1)), "planar atlas", 0.0, notes, probability, confidence, pairs)


def _probability(frame: Frame, body: Anatomy, draws: int, seed: int) -> FloatArray:
    """Return how often each organ lies under each pixel when organs are placed as mice differ, (n, Y, X)."""
    rng = np.random.default_rng(seed)
    grid = BodyGrid.of(body, _STEP_MM)
    found = np.zeros((len(ORGANS), grid.s.size, grid.u.size))
    for _ in range(draws):
        places = {o: Place(*(float(rng.normal(0, sd)) for sd in (p.along, p.across, p.up, p.log_volume)))
                  for o, p in SPREAD.items()}  # fmt: skip
        shares = grid.shares(replace(body, places=places))
        found += [np.minimum(shares[o].max(axis=0), 1.0) for o in ORGANS]
    at = sampling(frame, grid)
    flat = (found / draws).reshape(len(ORGANS), -1)
    return np.asarray((at @ flat.T).T.reshape(len(ORGANS), *frame.image.shape))


def _unresolved(scan: Scan, frame: Frame, body: Anatomy) -> tuple[tuple[str, str], ...]:
    band = scan.bands[0] if scan.bands else None
    if band is None or band.emission_nm is None:
        return ()
    lit = replace(frame, emission_nm=band.emission_nm, excitation_nm=band.excitation_nm)
    correlation = infer([lit], body, fit_anatomy=False).correlation
    return collinear_pairs(ORGANS, correlation)


def collinear_pairs(organs: Sequence[str], correlation: FloatArray) -> tuple[tuple[str, str], ...]:
    """Return pairs of organs whose estimates are correlated so strongly that only their sum is known."""
    return tuple((organs[i], organs[j]) for i in range(len(organs)) for j in range(i)
                 if abs(correlation[i, j]) >= _COLLINEAR)  # fmt: skip
