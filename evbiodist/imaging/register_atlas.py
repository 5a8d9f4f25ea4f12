"""Organs of an atlas in an animal that nobody outlined, by registration of pictures or outlines.

The atlas moves onto the animal, never the animal's pixels: what is measured stays as the camera gave it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.register import POINTS, calibrated_frames, distance_to_edge, logarithmic, outline_in, spacing_of
from evbiodist.io.scan import FloatArray, Scan

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813  its users' own name for it

#: An animal is not so many times larger, by area or volume, than the atlas'.
_STRETCH = 4.0


def register_atlas(
    scan: Scan,
    template: Scan,
    labels: OrganMap,
    *,
    metric: Literal["mutual_information", "outline"] = "mutual_information",
    elastic: bool = True,
    knots_mm: float | None = None,
) -> OrganMap:
    """Bring the organs of an atlas onto a scan: affine, then B-spline registration of the atlas' image.

    Parameters
    ----------
    scan : to be labelled, (Y, X) or (Z, Y, X); the frames of a series are averaged.
    template : image of the atlas, with as many axes; in the same orientation.
    labels : the atlas' organs, on the template's grid.
    metric : `mutual_information` of the two images, or the body's `outline` where nothing inside can be seen; an outline tells
        place, turn and size only, so the first step is a similarity instead of an affine transform.
    elastic : whether a B-spline follows the affine registration.
    knots_mm : distance of the B-spline's knots; a quarter of the scan's largest extent where None (closer
        knots follow noise: at an eighth they spoiled what the affine registration had found).

    Returns
    -------
    OrganMap : on the scan's grid. `confidence` is the Dice overlap of an organ with itself after the way to the scan and, by a
        second registration the other way round, back: low is a warning, high is no proof, as what no transform of this
        kind can follow does not show. `outline_px` is the error of place of the round trip, but 1 px at least.

    Raises
    ------
    ValueError : unknown pixel sizes, images of other shapes or without contrast, or a registration that fails.

    Notes
    -----
    Bytes repeat: one thread, every pixel or a regular grid of them, no random start. Orientation is not guessed: a
    template lying head down has to be turned first.

    Examples
    --------
    >>> y, x = np.mgrid[:48, :40]
    >>> def mouse(dy, dx):
    ...     body = ((y - 24 - dy) / 18) ** 2 + ((x - 20 - dx) / 10) ** 2 < 1
    ...     liver = (y - 18 - dy) ** 2 + (x - 18 - dx) ** 2 < 25
    ...     return Scan("m", None, body * 10.0 + liver * 20, "YX", pixel_size_mm=(0.5, 0.5)), liver
    >>> atlas, liver = mouse(0, 0)
    >>> scan, truth = mouse(4, -3)
    >>> found = register_atlas(scan, atlas, OrganMap(liver.astype(int), {1: "liver"}, "atlas"), elastic=False)
    >>> bool((found.mask("liver") & truth).sum() > 0.9 * truth.sum()), round(found.confidence["liver"], 1)
    (True, 1.0)

    Mattes 2003 (IEEE Trans Med Imaging 22:120) for the metric, Rueckert 1999 (18:712) for B-splines, Christensen 2001
    (20:568) for consistency with the inverse. Done by SimpleITK.
    """
    _check_atlas(scan, template, labels, metric)
    fixed, moving = (_atlas_picture(s, metric) for s in (scan, template))
    knots = knots_mm or max(n * d for n, d in zip(scan.frame_shape, spacing_of(scan), strict=True)) / 4
    try:
        with _one_thread():
            there, value = _registered(fixed, moving, metric, knots if elastic else None)
            back, _ = _registered(moving, fixed, metric, knots if elastic else None)
    except RuntimeError as err:
        reason = str(err).strip().splitlines()[-1][:200]
        raise ValueError(f"{template.name} could not be registered to {scan.name} ({reason}); crop both to the animal, "
                         "turn them alike, or use metric='outline'") from err  # fmt: skip
    found = _transferred(labels.labels, moving, fixed, there)
    lost = sorted(
        {labels.names[v] for v in np.unique(labels.labels) if v} - {labels.names[v] for v in np.unique(found) if v}
    )
    if not found.any():
        raise ValueError(
            f"no organ of {template.name} came to lie in {scan.name}; check that both show the same part of the animal"
        )
    again = replace(labels, labels=_transferred(found, fixed, moving, back))
    way = ("similarity" if metric == "outline" else "affine") + (" and B-spline" if elastic else "")
    notes = [f"{way} registration of {template.name} by {metric.replace('_', ' ')}, final metric {value:.4g}"]
    if lost:
        notes.append(f"not in the field of {scan.name}: {', '.join(lost)}")
    return OrganMap(
        found,
        labels.names,
        "atlas registration",
        outline_px=max(1.0, _round_trip(found, fixed, moving, there, back) / spacing_of(scan)[-1]),
        notes=(*labels.notes, *notes),
        confidence={o: _dice(labels.mask(o), again.mask(o)) for o in labels.organs if o not in lost},
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let SimpleITK use one thread: sums of several differ in their last bits from run to run, and then labels do.

    A registration method's own number of threads does not reach its metric.
    """
    import SimpleITK as sitk  # noqa: N813

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _check_atlas(scan: Scan, template: Scan, labels: OrganMap, metric: str) -> None:
    for image in (scan, template):
        if image.spacing_mm is None:
            what = "pixel size" if image.pixel_size_mm is None else "distance of slices"
            raise ValueError(f"{image.name} does not say its {what}, so an atlas cannot be brought to scale; "
                             f"give {'pixel_size_mm' if image.pixel_size_mm is None else 'slice_mm'}")  # fmt: skip
    if len(scan.frame_shape) != len(template.frame_shape):
        raise ValueError(f"{scan.name} has {len(scan.frame_shape)} axes in space, {template.name} has {len(template.frame_shape)}; "
                         "use an atlas of the same kind")  # fmt: skip
    if labels.labels.shape != template.frame_shape:
        raise ValueError(f"the {labels.origin} has shape {labels.labels.shape}, {template.name} {template.frame_shape}; give the "
                         "atlas' labels on the atlas' grid")  # fmt: skip
    if metric not in ("mutual_information", "outline"):
        raise ValueError(f"an atlas is registered by 'mutual_information' or 'outline', not by '{metric}'")


def _atlas_picture(scan: Scan, metric: str) -> sitk.Image:
    """Return the mean frame's logarithmic signal, or the distance to its outline, in SimpleITK's geometry."""
    import SimpleITK as sitk  # noqa: N813

    mean, count = np.zeros(scan.frame_shape), 0
    for frame in calibrated_frames(scan):
        mean, count = mean + frame, count + 1
    picture = logarithmic(mean / count, 0.5)
    if metric == "outline":
        picture = distance_to_edge(outline_in(picture), spacing_of(scan))
    if np.ptp(picture) == 0:
        raise ValueError(
            f"nothing stands out in {scan.name}, so there is nothing to register; give another image of the animal"
        )
    image = sitk.GetImageFromArray(picture.astype(np.float32))
    image.SetSpacing([float(s) for s in spacing_of(scan)[::-1]])
    return image


def _registered(
    fixed: sitk.Image, moving: sitk.Image, metric: str, knots: float | None
) -> tuple[sitk.Transform, float]:
    """Return the transform from points of `fixed` to points of `moving`, and the final metric."""
    import SimpleITK as sitk  # noqa: N813

    dim = fixed.GetDimension()
    kind = (
        sitk.AffineTransform
        if metric != "outline"
        else {2: sitk.Similarity2DTransform, 3: sitk.Similarity3DTransform}[dim]
    )
    affine = kind(dim) if metric != "outline" else kind()
    affine.SetCenter(_weighted_middle(fixed))
    affine.SetTranslation(np.subtract(_weighted_middle(moving), _weighted_middle(fixed)).tolist())
    method = _method(metric, fixed, shrink=tuple(s for s in (4, 2, 1) if s == 1 or min(fixed.GetSize()) >= 8 * s))
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0,
        minStep=1e-4,
        numberOfIterations=200,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-8,
        estimateLearningRate=method.Once,
        maximumStepSizeInPhysicalUnits=2 * max(fixed.GetSpacing()),
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(affine, inPlace=True)
    method.Execute(fixed, moving)
    stretch = abs(np.linalg.det(np.reshape(affine.GetMatrix(), (dim, dim))))
    if not 1 / _STRETCH < stretch < _STRETCH:
        raise RuntimeError(f"one image would have to be {stretch:.3g} times the size of the other")
    if knots is None:
        return affine, float(method.GetMetricValue())
    extent = [n * d for n, d in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)]
    spline = sitk.BSplineTransformInitializer(fixed, [max(1, round(e / knots)) for e in extent], order=3)
    method = _method(metric, fixed, shrink=(2,))
    method.SetOptimizerAsLBFGSB(gradientConvergenceTolerance=1e-5, numberOfIterations=15)
    method.SetMovingInitialTransform(affine)
    method.SetInitialTransform(spline, inPlace=True)
    method.Execute(fixed, moving)
    return sitk.CompositeTransform([affine, spline]), float(method.GetMetricValue())


def _method(metric: str, fixed: sitk.Image, shrink: tuple[int, ...]) -> sitk.ImageRegistrationMethod:
    import SimpleITK as sitk  # noqa: N813

    method = sitk.ImageRegistrationMethod()
    if metric == "outline":
        method.SetMetricAsMeanSquares()
    else:
        method.SetMetricAsMattesMutualInformation(32)
    share = min(1.0, POINTS / fixed.GetNumberOfPixels())
    method.SetMetricSamplingStrategy(method.REGULAR if share < 1 else method.NONE)
    method.SetMetricSamplingPercentage(share, seed=1)
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel([s / 2 for s in shrink])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _weighted_middle(image: sitk.Image) -> tuple[float, ...]:
    """Return the middle of what is bright in a picture, in mm along x, y(, z)."""
    import SimpleITK as sitk  # noqa: N813

    picture = sitk.GetArrayViewFromImage(image)
    middle = ndimage.center_of_mass(np.maximum(picture - np.median(picture), 0))
    return tuple(float(m * d) for m, d in zip(middle[::-1], image.GetSpacing(), strict=True))


def _transferred(labels: NDArray[np.int32], of: sitk.Image, onto: sitk.Image, way: sitk.Transform) -> NDArray[np.int32]:
    """Return labels of one image on the grid of another, by nearest neighbour."""
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(labels.astype(np.int32))
    image.CopyInformation(of)
    return np.asarray(sitk.GetArrayFromImage(sitk.Resample(image, onto, way, sitk.sitkNearestNeighbor, 0)), np.int32)


def _round_trip(
    labels: NDArray[np.int32], fixed: sitk.Image, moving: sitk.Image, there: sitk.Transform, back: sitk.Transform
) -> float:
    """Return how far organs' pixels miss themselves after going there and back, as the error of one way in mm."""
    import SimpleITK as sitk  # noqa: N813

    def moves(transform: sitk.Transform, grid: sitk.Image) -> FloatArray:
        kind = sitk.sitkVectorFloat64
        field = sitk.TransformToDisplacementField(
            transform, kind, grid.GetSize(), grid.GetOrigin(), grid.GetSpacing(), grid.GetDirection()
        )
        return np.moveaxis(sitk.GetArrayFromImage(field)[..., ::-1], -1, 0)  # (ndim, ...) in mm along (z, )y, x

    pixels = np.argwhere(labels > 0).T
    first = moves(there, fixed)[(slice(None), *pixels)]
    landed = (pixels * np.array(fixed.GetSpacing())[::-1, None] + first) / np.array(moving.GetSpacing())[::-1, None]
    second = np.stack([ndimage.map_coordinates(m, landed, order=1, mode="nearest") for m in moves(back, moving)])
    return float(np.sqrt(np.mean(np.sum((first + second) ** 2, axis=0)) / 2))


def _dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * np.sum(a & b) / max(a.sum() + b.sum(), 1))
