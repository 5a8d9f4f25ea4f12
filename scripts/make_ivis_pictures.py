"""Draw what cleaning and quantification make of a real IVIS click, which is not part of the project.

The full picture is for the user's own eyes and goes outside the checkout; docs/pictures/ivis_cosmic.png holds no
pixel of the instrument: outlines found by segment_body, masks of flagged pixels, and fluxes with their intervals.

    python scripts/make_ivis_pictures.py CLICK_FOLDER FULL_PICTURE.png
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from skimage.measure import find_contours

from evbiodist.imaging.clean import BadPixels, find_bad_pixels
from evbiodist.imaging.noise import estimate_camera
from evbiodist.imaging.organs import OrganMap
from evbiodist.imaging.quantify import OrganSignals, quantify
from evbiodist.imaging.segment import segment_body
from evbiodist.io.registry import read_scan
from evbiodist.io.scan import FloatArray, Scan

ROOT = Path(__file__).resolve().parents[1]
BODY, HIT, INK, GREY = "#0072B2", "#D55E00", "#222222", "#999999"
ZOOM, INSET = 3, 9
AROUND = np.ones((3, 3))


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font, the same on every machine."""
    return ImageFont.load_default(size)


def outlines(draw: ImageDraw.ImageDraw, animals: OrganMap, zoom: float, top: int, colour: str) -> None:
    """Draw the edge of every animal's mask, smoothed over its stairs."""
    for animal in animals.organs:
        for line in find_contours(np.pad(animals.mask(animal).astype(float), 1), 0.5):
            smooth = ndimage.gaussian_filter1d(line - 0.5, 1.5, axis=0, mode="wrap")
            draw.line([(x * zoom, top + y * zoom) for y, x in smooth], fill=colour, width=2)


def hits_of(found: BadPixels) -> list[tuple[int, int]]:
    """Return the middle pixel of every hit, (row, column), from the top."""
    labels, count = ndimage.label(found.cosmic, AROUND)
    return [(round(y), round(x)) for y, x in ndimage.center_of_mass(found.cosmic, labels, range(1, count + 1))]


def full_picture(scan: Scan, animals: OrganMap, found: BadPixels) -> Image.Image:
    """Return the image with outlines and hits; instrument data, for the user's own eyes."""
    signal = scan.signal()
    noise = 1.4826 * np.median(np.abs(signal - np.median(signal)))
    grey = np.arcsinh((signal - np.median(signal)) / (2 * noise))
    pixels = np.clip(255 * grey / grey.max(), 0, 255).astype(np.uint8)
    page = (
        Image.fromarray(pixels)
        .resize((4 * pixels.shape[1], 4 * pixels.shape[0]), Image.Resampling.NEAREST)
        .convert("RGB")
    )
    draw = ImageDraw.Draw(page)
    outlines(draw, animals, 4, 0, "#56B4E9")
    for y, x in hits_of(found):
        draw.ellipse((4 * x - 14, 4 * y - 14, 4 * x + 18, 4 * y + 18), outline=HIT, width=2)
    return page


def cosmic_picture(
    scan: Scan, animals: OrganMap, found: BadPixels, before: OrganSignals, after: OrganSignals
) -> Image.Image:
    """Return the picture for the documentation; no pixel of it is the instrument's."""
    side = ZOOM * scan.plane_shape[1]
    page = Image.new("RGB", (side + 560, ZOOM * scan.plane_shape[0] + 40), "white")
    draw = ImageDraw.Draw(page)
    draw.text((12, 8), f"{len(animals.organs)} animals found in the photograph, {found.hits} cosmic-ray hits in the frame",
              INK, font(18))  # fmt: skip
    draw.rectangle((0, 38, side - 1, 38 + ZOOM * scan.plane_shape[0]), outline=GREY)
    outlines(draw, animals, ZOOM, 38, BODY)
    for name in animals.organs:
        y, x = ndimage.center_of_mass(animals.mask(name))
        draw.text((x * ZOOM, 38 + y * ZOOM), name.removeprefix("animal_"), BODY, font(22), anchor="mm")
    hits = hits_of(found)
    for number, (y, x) in enumerate(hits, 1):
        draw.rectangle((x * ZOOM - 4, 38 + y * ZOOM - 4, x * ZOOM + 6, 38 + y * ZOOM + 6), outline=HIT, width=2)
        draw.text((x * ZOOM - 12, 38 + y * ZOOM + 2), chr(96 + number), HIT, font(18), anchor="rm")
    insets(draw, found, hits, side + 40)
    fluxes(draw, before, after, int((found.mask & (animals.labels > 0)).sum()), side + 40)
    return page


def insets(draw: ImageDraw.ImageDraw, found: BadPixels, hits: list[tuple[int, int]], left: int) -> None:
    """Draw the mask around each hit, enlarged: which pixels were flagged, not what they hold."""
    draw.text((left, 46), f"flagged pixels, {INSET} x {INSET} px around each hit", INK, font(18))
    half, cell = INSET // 2, 12
    around = np.pad(found.cosmic, half)
    for number, (y, x) in enumerate(hits):
        x0, y0 = left + number * (INSET * cell + 14), 98
        draw.text((x0, y0 - 24), chr(97 + number), HIT, font(18))
        for dy, dx in np.ndindex(INSET, INSET):
            box = (x0 + dx * cell, y0 + dy * cell, x0 + (dx + 1) * cell, y0 + (dy + 1) * cell)
            draw.rectangle(box, fill=HIT if around[y + dy, x + dx] else "white", outline="#DDDDDD")


def fluxes(draw: ImageDraw.ImageDraw, before: OrganSignals, after: OrganSignals, inside: int, left: int) -> None:
    """Draw the total flux of each animal with its 95 % interval on a logarithmic axis."""
    draw.text((left, 262), "total flux of each animal, 95 % interval (photons/s)", INK, font(18))
    draw.text((left, 288), "hits left out; calibration and outline errors included", GREY, font(15))
    value, reach = after.value, 1.96 * after.total_se()
    low, high = np.floor(np.log10((value - reach).min())), np.ceil(np.log10((value + reach).max()))

    def across(flux: FloatArray | float) -> float:
        return float(left + 40 + 380 * (np.log10(flux) - low) / (high - low))

    for power in np.arange(low, high + 1):
        draw.line((across(10**power), 320, across(10**power), 560), fill="#DDDDDD")
        draw.text((across(10**power), 566), f"1e{power:g}", INK, font(15), anchor="mt")
    for i, name in enumerate(after.organs):
        y = 345 + 46 * i
        draw.text((left, y), name.removeprefix("animal_"), BODY, font(20), anchor="lm")
        draw.line((across(value[i] - reach[i]), y, across(value[i] + reach[i]), y), fill=INK, width=3)
        draw.ellipse((across(value[i]) - 6, y - 6, across(value[i]) + 6, y + 6), fill=INK)
        draw.text((across(value[i] + reach[i]) + 10, y), f"{value[i]:.3g}", INK, font(15), anchor="lm")
    most = float(np.max(np.abs(after.value - before.value) / after.se))
    draw.text((left, 610), f"Leaving the hits out changes each flux by at most {most:.2f} standard errors\n"
                           f"of its random part; {inside or 'no'} flagged pixels lie on an animal.", INK, font(16))  # fmt: skip


def main(folder: Path, full: Path) -> None:
    """Write both pictures and say where."""
    if full.resolve().is_relative_to(ROOT):
        sys.exit(f"{full} lies in the checkout, where pixels of the instrument must not be; give a path outside of it")
    scan = read_scan(folder)
    scan = replace(scan, camera=estimate_camera(scan)[0])
    found, animals = find_bad_pixels(scan), segment_body(scan)
    clean = replace(scan, counts=np.where(found.mask, np.nan, scan.counts))
    full_picture(scan, animals, found).save(full)
    page = cosmic_picture(scan, animals, found, quantify(scan, animals), quantify(clean, animals))
    target = ROOT / "docs" / "pictures" / "ivis_cosmic.png"
    page.quantize(32).save(target, optimize=True)
    print(f"{full}\n{target}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
