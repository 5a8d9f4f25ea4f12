"""The report's pictures of scans: a choice spread over labels and times, compressed so that the page stays small."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

from evbiodist.batch.scans import outline_colour
from evbiodist.report.folder import ResultFolder
from evbiodist.report.rows import records

_PICTURES = 24
_BYTES = 20_000_000
#: WebP of this quality shows outlines and noise as they are at a tenth of the size.
_QUALITY = 88


def pictures(results: ResultFolder) -> list[dict[str, Any]]:
    """Return pictures of at most some scans with their legends; not of files outside the folder, too large ones or broken ones."""
    scans = results["scans"]
    if scans.empty:
        return []
    first = scans.drop_duplicates(["label", "kind", "time_h"])
    step = max(1, math.ceil(len(first) / _PICTURES))
    found = []
    for r in records(first.iloc[::step]):
        file = results.path / r["picture"]
        inside = file.resolve().is_relative_to(results.path.resolve())
        small = _small(file) if inside and file.is_file() and file.stat().st_size <= _BYTES else None
        if small:
            kind, data, size = small
            legend = [
                {"organ": organ, "colour": outline_colour(i)} for i, organ in enumerate(r["legend"].split(";")) if organ
            ]
            found.append(
                {**r, "source": f"data:{kind};base64,{base64.b64encode(data).decode()}", "size": size, "legend": legend}
            )
    return found


def _small(file: Path) -> tuple[str, bytes, tuple[int, int]] | None:
    """Return a picture as WebP (as PNG where Pillow cannot write that) with its size; None where it cannot be read."""
    import warnings

    from PIL import Image, features

    kind = "webp" if features.check("webp") else "png"
    packed = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a picture that unpacks to very much is refused by a warning
            with Image.open(file, formats=["PNG"]) as image:
                image.convert("RGB").save(packed, kind, quality=_QUALITY, method=2)
                return f"image/{kind}", packed.getvalue(), image.size
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
        return None
