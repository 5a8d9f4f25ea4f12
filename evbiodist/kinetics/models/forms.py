"""How fast a transfer goes, as a function of what is there: the registered rate forms, with their derivatives.

A model names one of these; nothing in a model executes. Forms other than first order make a graph non-linear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evbiodist.kinetics.models.graph import Monomial, Transfer

FloatArray = NDArray[np.float64]


class Flux(NamedTuple):
    """Amount per hour that transfers move, and its derivatives; all arrays have one shape, `by_constants` one each."""

    value: FloatArray
    by_source: FloatArray
    by_target: FloatArray
    by_rate: FloatArray
    by_constants: tuple[FloatArray, ...]


#: Flux of transfers from rate, constants (in the order of `Form.needs`), amount in the source, amount in the target.
FluxFunction = Callable[[FloatArray, tuple[FloatArray, ...], FloatArray, FloatArray], Flux]


@dataclass(frozen=True)
class Form:
    """A rate form: its name, what it needs beside the rate, its equation as text, and its flux.

    Parameters
    ----------
    name, description : identity; `description` is the equation in words.
    needs : names of the constants, in the order in which `flux` takes them.
    text : the equation of one transfer.
    flux : the equation of many at once.
    needs_target : whether the form has no meaning for what leaves the body.
    """

    name: str
    needs: tuple[str, ...]
    description: str
    text: Callable[[Transfer], str]
    flux: FluxFunction
    needs_target: bool = False


def _first_order_text(t: Transfer) -> str:
    return f"A_{t.source}" if not t.rate.powers and t.rate.coefficient == 1 else f"{t.rate} * A_{t.source}"


def _over(t: Transfer, amount: str, constant: str) -> str:
    monomial: Monomial = dict(t.constants)[constant]
    text = str(monomial)
    return f"{amount}/{f'({text})' if '*' in text or '/' in text else text}"


def _michaelis_menten_text(t: Transfer) -> str:
    return f"{_first_order_text(t)}/(1 + {_over(t, f'A_{t.source}', 'half')})"


def _hill_text(t: Transfer) -> str:
    return f"{_first_order_text(t)}/(1 + ({_over(t, f'A_{t.source}', 'half')})^{dict(t.constants)['steepness']})"


def _capacity_text(t: Transfer) -> str:
    return f"{_first_order_text(t)} * (1 - {_over(t, f'A_{t.target}', 'capacity')})"


def first_order(rate: FloatArray, constants: tuple[FloatArray, ...], source: FloatArray, target: FloatArray) -> Flux:
    """Return ``rate * source``."""
    value = rate * source
    return Flux(value, rate + 0 * source, 0 * value, source + 0 * rate, ())


def michaelis_menten(
    rate: FloatArray, constants: tuple[FloatArray, ...], source: FloatArray, target: FloatArray
) -> Flux:
    """Return ``rate * source / (1 + source / half)``: Vmax is ``rate * half``, the Michaelis constant ``half``.

    Parameters
    ----------
    rate : per hour, at low amounts; constants : (half,), the amount in the source at which uptake is half as
        efficient; source, target : amounts. Shapes broadcast.

    Examples
    --------
    >>> one = np.ones(1)
    >>> michaelis_menten(2 * one, (3 * one,), 3 * one, one).value.tolist()
    [3.0]

    Michaelis L, Menten ML (1913) Biochem Z 49:333.
    """
    (half,) = constants
    filled = source / half
    free = 1 / (1 + filled)
    return Flux(rate * source * free, rate * free**2, 0 * rate * free, source * free,
                (rate * (filled * free) ** 2,))  # fmt: skip


def capacity(rate: FloatArray, constants: tuple[FloatArray, ...], source: FloatArray, target: FloatArray) -> Flux:
    """Return ``rate * source * (1 - target / capacity)``: places in the target fill up, as phagocytes do.

    Examples
    --------
    >>> one = np.ones(1)
    >>> capacity(2 * one, (4 * one,), 3 * one, one).value.tolist()
    [4.5]

    The form of a logistic (Langmuir) occupancy: the share of places that are still free.
    """
    (most,) = constants
    free = 1 - target / most
    return Flux(rate * source * free, rate * free, -rate * source / most, source * free,
                (rate * source * target / most**2,))  # fmt: skip


def hill(rate: FloatArray, constants: tuple[FloatArray, ...], source: FloatArray, target: FloatArray) -> Flux:
    """Return ``rate * source / (1 + (source / half) ** steepness)``: as `michaelis_menten`, but more sudden.

    Examples
    --------
    >>> one = np.ones(1)
    >>> hill(2 * one, (3 * one, 2 * one), 6 * one, one).value.round(6).tolist()
    [2.4]
    """
    from scipy.special import expit

    half, steepness = constants
    there = source > 0
    log = np.log(np.where(there, source, half) / half)
    z = np.where(there, steepness * log, -np.inf)  # of the share that is filled, so that no power overflows
    free, filled = expit(-z), expit(z)
    lost = rate * source * free * filled
    return Flux(rate * source * free, rate * free * (1 - steepness * filled), 0 * rate * free, source * free,
                (lost * steepness / half, -lost * log))  # fmt: skip


#: Rate forms by name.
FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form("first_order", (), "rate x amount", _first_order_text, first_order),
        Form("michaelis_menten", ("half",), "rate x amount / (1 + amount / half)", _michaelis_menten_text,
             michaelis_menten),
        Form("capacity", ("capacity",), "rate x amount x (1 - amount in the target / capacity)", _capacity_text,
             capacity, needs_target=True),
        Form("hill", ("half", "steepness"), "rate x amount / (1 + (amount / half)^steepness)", _hill_text, hill),
    )
}  # fmt: skip
