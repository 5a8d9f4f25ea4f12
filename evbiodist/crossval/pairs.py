"""What every comparison of two labels asks of its pairs: one length, finite, and a level between 0 and 1.

Missing values are refused rather than dropped, because only the caller knows what a missing half means.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def paired(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return both as finite vectors of one length, or say what is wrong.

    Parameters
    ----------
    a, b : (n,) the same quantity of the same organ and time, in the same unit.

    Raises
    ------
    ValueError : different shapes, or values that are not finite.

    Examples
    --------
    >>> paired([1, 2], [3])
    Traceback (most recent call last):
    ...
    ValueError: a and b: found shapes (2,) and (1,), expected two vectors of one length; pair the measurements by ...
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(
            f"a and b: found shapes {x.shape} and {y.shape}, expected two vectors of one length; "
            "pair the measurements by animal, organ and time first."
        )
    for name, values in (("a", x), ("b", y)):
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise ValueError(
                f"{name}: found {bad} of {values.size} values NaN or infinite, expected finite ones; "
                "leave incomplete pairs out of both a and b."
            )
    return x, y


def check_level(level: float) -> None:
    """Refuse a level of confidence that is not a share.

    Raises
    ------
    ValueError : `level` outside 0 to 1.

    Examples
    --------
    >>> check_level(0.95)
    """
    if not 0 < level < 1:
        raise ValueError(f"level: found {level}, expected a share between 0 and 1; give 0.95 for 95 %.")


def flat(x: FloatArray, y: FloatArray, lacks: str = "neither concordance nor a line follows") -> str:
    """Say in words which of two labels reads the same everywhere; empty when neither does.

    Examples
    --------
    >>> flat(np.ones(3), np.arange(3.0))
    'a reads the same everywhere, so neither concordance nor a line follows'
    """
    names = [name for name, values in (("a", x), ("b", y)) if np.ptp(values) == 0]
    verb = "read" if len(names) == 2 else "reads"
    return f"{' and '.join(names)} {verb} the same everywhere, so {lacks}" if names else ""
