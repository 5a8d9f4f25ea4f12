"""The catalogue of non-compartmental parameters: each record stands beside the formula it names.

Tables, reports, SEND export and documentation derive from it, so a parameter is added here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

#: Arrays by name, one element a profile (complex while derivatives are taken).
Values = Mapping[str, NDArray[Any]]
Formula = Callable[[Values], NDArray[Any]]

IV_ROUTES = ("iv_bolus", "iv_infusion")
EXTRAVASCULAR_ROUTES = ("oral", "ip", "sc", "im", "inhaled", "intranasal")
#: How the vesicles came to where they are measured; `tissue` is an organ's own profile, after any route.
ROUTES = (*IV_ROUTES, *EXTRAVASCULAR_ROUTES, "tissue")

_SAMPLING = "it is one of the sampling times, so it has no standard error"
_FIT = "it describes the choice of points, so it has no standard error"


@dataclass(frozen=True)
class Parameter:
    """One non-compartmental parameter: what it is called, measured in and made of.

    Parameters
    ----------
    name : lower snake case, as in parameters.csv.
    dimension : powers of its ingredients for `evbiodist.study.units.derive`.
    cdisc, test : PPTESTCD and PPTEST of the CDISC controlled terminology.
    description : one phrase.
    depends : parameters it is computed from; a missing value, its reason and its flags are handed on.
    positive : the interval is made on the logarithmic scale.
    routes : routes it exists for.
    needs_dose : missing unless a dose is given.
    rests_on : which samples it uses: ``profile``, ``terminal``, ``peak`` or ``last``.
    no_se : why it never has a standard error; empty when it can have one.
    cdisc_ev, test_ev : code and name for extravascular routes, where CDISC has another one.
    formula : its value from others, or None when it is read off the profile.

    Examples
    --------
    >>> PARAMETERS["half_life"].cdisc, PARAMETERS["half_life"].depends
    ('LAMZHL', ('lambda_z',))
    """

    name: str
    dimension: str
    cdisc: str
    test: str
    description: str
    depends: tuple[str, ...] = ()
    positive: bool = True
    routes: tuple[str, ...] = ROUTES
    needs_dose: bool = False
    rests_on: str = "profile"
    no_se: str = ""
    cdisc_ev: str = ""
    test_ev: str = ""
    formula: Formula | None = None

    def code(self, route: str) -> tuple[str, str]:
        """Return PPTESTCD and PPTEST for a route.

        Examples
        --------
        >>> PARAMETERS["mrt_inf"].code("ip")
        ('MRTEVIFO', 'MRT Extravasc Infinity Obs')
        """
        if self.cdisc_ev and route not in IV_ROUTES:
            return self.cdisc_ev, self.test_ev
        return self.cdisc, self.test


#: All parameters by name, in the order of tables.
PARAMETERS: dict[str, Parameter] = {}


def for_route(route: str) -> tuple[Parameter, ...]:
    """Return the parameters that exist for a route, in order.

    Examples
    --------
    >>> [p.name for p in for_route("tissue") if p.needs_dose]
    ['cmax_dose', 'aucinf_dose']
    """
    return tuple(p for p in PARAMETERS.values() if route in p.routes)


def _read(name: str, dimension: str, cdisc: str, test: str, description: str, **more: Any) -> None:
    """Register a parameter that is read off the profile."""
    PARAMETERS[name] = Parameter(name, dimension, cdisc, test, description, **more)


def _derive(
    name: str, dimension: str, cdisc: str, test: str, description: str, **more: Any
) -> Callable[[Formula], Formula]:
    """Register the decorated formula as a parameter."""

    def register(formula: Formula) -> Formula:
        PARAMETERS[name] = Parameter(name, dimension, cdisc, test, description, formula=formula, **more)
        return formula

    return register


# what was seen

_read("cmax", "value", "CMAX", "Max Conc", "highest quantifiable value", rests_on="peak")
_read("tmax", "time", "TMAX", "Time of CMAX", "first time of the highest value", rests_on="peak", no_se=_SAMPLING)
_read("clast", "value", "CLST", "Last Nonzero Conc", "last quantifiable value", rests_on="last")
_read(
    "tlast",
    "time",
    "TLST",
    "Time of Last Nonzero Conc",
    "time of the last quantifiable value",
    rests_on="last",
    no_se=_SAMPLING,
)
_read(
    "c0",
    "value",
    "C0",
    "Initial Conc",
    "value at time 0, observed or extrapolated back from the first two samples",
    routes=("iv_bolus",),
)
_read("auclast", "value*time", "AUCLST", "AUC to Last Nonzero Conc", "area from 0 h to the last quantifiable value")
_read(
    "aucall",
    "value*time",
    "AUCALL",
    "AUC All",
    "area to the last quantifiable value, and the triangle to the first sample below the limit after it",
)

# areas to infinity


@_derive(
    "aucinf_obs",
    "value*time",
    "AUCIFO",
    "AUC Infinity Obs",
    "area to infinity from the last observed value",
    depends=("auclast", "clast", "lambda_z"),
)
def _aucinf_obs(v: Values) -> NDArray[Any]:
    return v["auclast"] + v["clast"] / v["lambda_z"]


@_derive(
    "aucinf_pred",
    "value*time",
    "AUCIFP",
    "AUC Infinity Pred",
    "area to infinity from the last value on the terminal line",
    depends=("auclast", "lambda_z"),
)
def _aucinf_pred(v: Values) -> NDArray[Any]:
    return v["auclast"] + v["clast_pred"] / v["lambda_z"]


@_derive(
    "auc_pct_extrap_obs",
    "1",
    "AUCPEO",
    "AUC %Extrapolation Obs",
    "percent of aucinf_obs after the last sample",
    depends=("aucinf_obs", "auclast"),
)
def _auc_pct_extrap_obs(v: Values) -> NDArray[Any]:
    return 100 * (1 - v["auclast"] / v["aucinf_obs"])


@_derive(
    "auc_pct_extrap_pred",
    "1",
    "AUCPEP",
    "AUC %Extrapolation Pred",
    "percent of aucinf_pred after the last sample",
    depends=("aucinf_pred", "auclast"),
)
def _auc_pct_extrap_pred(v: Values) -> NDArray[Any]:
    return 100 * (1 - v["auclast"] / v["aucinf_pred"])


@_derive(
    "auc_pct_back_extrap_obs",
    "1",
    "AUCPBEO",
    "AUC %Back Extrapolation Obs",
    "percent of aucinf_obs before the first sample",
    depends=("aucinf_obs", "c0"),
    routes=("iv_bolus",),
    positive=False,
)
def _auc_pct_back_extrap_obs(v: Values) -> NDArray[Any]:
    return 100 * v["auc_back"] / v["aucinf_obs"]


@_derive(
    "auc_pct_back_extrap_pred",
    "1",
    "AUCPBEP",
    "AUC %Back Extrapolation Pred",
    "percent of aucinf_pred before the first sample",
    depends=("aucinf_pred", "c0"),
    routes=("iv_bolus",),
    positive=False,
)
def _auc_pct_back_extrap_pred(v: Values) -> NDArray[Any]:
    return 100 * v["auc_back"] / v["aucinf_pred"]


_read(
    "aumclast",
    "value*time*time",
    "AUMCLST",
    "AUMC to Last Nonzero Conc",
    "area under time times value, to the last quantifiable value",
)


def _aumcinf(v: Values, clast: str) -> NDArray[Any]:
    tail = v[clast] / v["lambda_z"]
    return v["aumclast"] + tail * (v["tlast"] + 1 / v["lambda_z"])


@_derive(
    "aumcinf_obs",
    "value*time*time",
    "AUMCIFO",
    "AUMC Infinity Obs",
    "area under time times value to infinity, from the last observed value",
    depends=("aumclast", "tlast", "aucinf_obs", "lambda_z"),
)
def _aumcinf_obs(v: Values) -> NDArray[Any]:
    return _aumcinf(v, "clast")


@_derive(
    "aumcinf_pred",
    "value*time*time",
    "AUMCIFP",
    "AUMC Infinity Pred",
    "area under time times value to infinity, from the last value on the terminal line",
    depends=("aumclast", "tlast", "aucinf_pred", "lambda_z"),
)
def _aumcinf_pred(v: Values) -> NDArray[Any]:
    return _aumcinf(v, "clast_pred")


@_derive(
    "aumc_pct_extrap_obs",
    "1",
    "AUMCPEO",
    "AUMC % Extrapolation Obs",
    "percent of aumcinf_obs after the last sample",
    depends=("aumcinf_obs", "aumclast"),
)
def _aumc_pct_extrap_obs(v: Values) -> NDArray[Any]:
    return 100 * (1 - v["aumclast"] / v["aumcinf_obs"])


@_derive(
    "aumc_pct_extrap_pred",
    "1",
    "AUMCPEP",
    "AUMC % Extrapolation Pred",
    "percent of aumcinf_pred after the last sample",
    depends=("aumcinf_pred", "aumclast"),
)
def _aumc_pct_extrap_pred(v: Values) -> NDArray[Any]:
    return 100 * (1 - v["aumclast"] / v["aumcinf_pred"])


# the terminal phase

_read("lambda_z", "1/time", "LAMZ", "Lambda z", "rate constant of the terminal phase", rests_on="terminal")
_read(
    "lambda_z_n",
    "1",
    "LAMZNPT",
    "Number of Points for Lambda z",
    "samples on the terminal line",
    depends=("lambda_z",),
    rests_on="terminal",
    no_se=_FIT,
)
_read(
    "lambda_z_lower",
    "time",
    "LAMZLL",
    "Lambda z Lower Limit",
    "first time on the terminal line",
    depends=("lambda_z",),
    rests_on="terminal",
    no_se=_SAMPLING,
)
_read(
    "lambda_z_upper",
    "time",
    "LAMZUL",
    "Lambda z Upper Limit",
    "last time on the terminal line",
    depends=("lambda_z",),
    rests_on="terminal",
    no_se=_SAMPLING,
)
_read(
    "r2",
    "1",
    "R2",
    "R Squared",
    "squared correlation of the terminal line",
    depends=("lambda_z",),
    rests_on="terminal",
    no_se=_FIT,
)
_read(
    "adj_r2",
    "1",
    "R2ADJ",
    "R Squared Adjusted",
    "r2 adjusted for the number of points",
    depends=("lambda_z",),
    rests_on="terminal",
    no_se=_FIT,
)


@_derive(
    "span_ratio",
    "1",
    "LAMZSPN",
    "Lambda z Span",
    "half-lives covered by the terminal line",
    depends=("lambda_z",),
    rests_on="terminal",
)
def _span_ratio(v: Values) -> NDArray[Any]:
    return (v["lambda_z_upper"] - v["lambda_z_lower"]) * v["lambda_z"] / math.log(2)


@_derive(
    "half_life",
    "time",
    "LAMZHL",
    "Half-Life Lambda z",
    "half-life of the terminal phase",
    depends=("lambda_z",),
    rests_on="terminal",
)
def _half_life(v: Values) -> NDArray[Any]:
    return math.log(2) / v["lambda_z"]


# residence, clearance, volumes


@_derive(
    "mrt_last",
    "time",
    "MRTIVLST",
    "MRT Intravasc to Last Nonzero Conc",
    "mean residence time to the last quantifiable value (with the input's time after extravascular routes)",
    depends=("aumclast", "auclast"),
    cdisc_ev="MRTEVLST",
    test_ev="MRT Extravasc to Last Nonzero Conc",
)
def _mrt_last(v: Values) -> NDArray[Any]:
    return v["aumclast"] / v["auclast"] - v["infusion_h"] / 2


@_derive(
    "mrt_inf",
    "time",
    "MRTIVIFO",
    "MRT Intravasc Infinity Obs",
    "mean residence time (with the input's time after extravascular routes)",
    depends=("aumcinf_obs", "aucinf_obs"),
    cdisc_ev="MRTEVIFO",
    test_ev="MRT Extravasc Infinity Obs",
)
def _mrt_inf(v: Values) -> NDArray[Any]:
    return v["aumcinf_obs"] / v["aucinf_obs"] - v["infusion_h"] / 2


@_derive(
    "mrt_inf_pred",
    "time",
    "MRTIVIFP",
    "MRT Intravasc Infinity Pred",
    "mean residence time from the last value on the terminal line",
    depends=("aumcinf_pred", "aucinf_pred"),
    cdisc_ev="MRTEVIFP",
    test_ev="MRT Extravasc Infinity Pred",
)
def _mrt_inf_pred(v: Values) -> NDArray[Any]:
    return v["aumcinf_pred"] / v["aucinf_pred"] - v["infusion_h"] / 2


@_derive(
    "cl",
    "dose/value/time",
    "CLO",
    "Total CL Obs",
    "clearance: dose / aucinf_obs",
    depends=("aucinf_obs",),
    needs_dose=True,
    routes=IV_ROUTES,
)
@_derive(
    "cl_f",
    "dose/value/time",
    "CLFO",
    "Total CL Obs by F",
    "clearance over the unknown fraction that arrives: dose / aucinf_obs",
    depends=("aucinf_obs",),
    needs_dose=True,
    routes=EXTRAVASCULAR_ROUTES,
)
def _cl(v: Values) -> NDArray[Any]:
    return v["dose"] / v["aucinf_obs"]


@_derive(
    "vz",
    "dose/value",
    "VZO",
    "Vz Obs",
    "volume of distribution of the terminal phase: cl / lambda_z",
    depends=("cl", "lambda_z"),
    needs_dose=True,
    routes=IV_ROUTES,
)
@_derive(
    "vz_f",
    "dose/value",
    "VZFO",
    "Vz Obs by F",
    "vz over the unknown fraction that arrives",
    depends=("cl_f", "lambda_z"),
    needs_dose=True,
    routes=EXTRAVASCULAR_ROUTES,
)
def _vz(v: Values) -> NDArray[Any]:
    return v["dose"] / v["aucinf_obs"] / v["lambda_z"]


@_derive(
    "vss",
    "dose/value",
    "VSSO",
    "Vol Dist Steady State Obs",
    "volume of distribution at steady state: cl x mrt_inf",
    depends=("cl", "mrt_inf"),
    needs_dose=True,
    routes=IV_ROUTES,
)
def _vss(v: Values) -> NDArray[Any]:
    return v["cl"] * v["mrt_inf"]


# per dose


@_derive(
    "cmax_dose",
    "value/dose",
    "CMAXD",
    "Max Conc Norm by Dose",
    "cmax / dose",
    depends=("cmax",),
    needs_dose=True,
    rests_on="peak",
)
def _cmax_dose(v: Values) -> NDArray[Any]:
    return v["cmax"] / v["dose"]


@_derive(
    "aucinf_dose",
    "value*time/dose",
    "AUCIFOD",
    "AUC Infinity Obs Norm by Dose",
    "aucinf_obs / dose",
    depends=("aucinf_obs",),
    needs_dose=True,
)
def _aucinf_dose(v: Values) -> NDArray[Any]:
    return v["aucinf_obs"] / v["dose"]
