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
    rests_on : which samples it uses: ``profile``, ``terminal``, ``peak``, ``trough`` or ``last``.
    no_se : why it never has a standard error; empty when it can have one.
    cdisc_ev, test_ev : code and name for extravascular routes, where CDISC has another one.
    cdisc_infusion, test_infusion : the same for an intravenous infusion.
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
    cdisc_infusion: str = ""
    test_infusion: str = ""
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
        if self.cdisc_infusion and route == "iv_infusion":
            return self.cdisc_infusion, self.test_infusion
        return self.cdisc, self.test


#: All parameters by name, in the order of tables.
PARAMETERS: dict[str, Parameter] = {}


def for_route(route: str) -> tuple[Parameter, ...]:
    """Return the parameters `evbiodist.kinetics.nca.nca.nca` gives for a route, in order.

    Examples
    --------
    >>> [p.name for p in for_route("tissue") if p.needs_dose]
    ['cmax_dose', 'auclast_dose', 'aucinf_dose', 'aucinf_pred_dose']
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
_read("cmin", "value", "CMIN", "Min Conc", "lowest quantifiable value", rests_on="trough")
_read("tmin", "time", "TMIN", "Time of CMIN", "first time of the lowest value", rests_on="trough", no_se=_SAMPLING)
_read(
    "tlag",
    "time",
    "TLAG",
    "Time Until First Nonzero Conc",
    "time of the last sample before the first value above zero; 0 when the first sample has one",
    routes=EXTRAVASCULAR_ROUTES,
    no_se=_SAMPLING,
)
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
    "value at time 0, observed or by the fallbacks of the rule `c0`",
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
    "clast_pred",
    "value",
    "",
    "",
    "value on the terminal line at the time of the last quantifiable value",
    depends=("lambda_z",),
    rests_on="terminal",
)
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
    "MRTIBLST",
    "MRT IV Bolus to Last Nonzero Conc",
    "mean residence time to the last quantifiable value (with the input's time after extravascular routes)",
    depends=("aumclast", "auclast"),
    cdisc_ev="MRTEVLST",
    test_ev="MRT Extravasc to Last Nonzero Conc",
    cdisc_infusion="MRTICLST",
    test_infusion="MRT IV Cont Inf to Last Nonzero Conc",
)
def _mrt_last(v: Values) -> NDArray[Any]:
    return v["aumclast"] / v["auclast"] - v["infusion_h"] / 2


@_derive(
    "mrt_inf",
    "time",
    "MRTIBIFO",
    "MRT IV Bolus Infinity Obs",
    "mean residence time (with the input's time after extravascular routes)",
    depends=("aumcinf_obs", "aucinf_obs"),
    cdisc_ev="MRTEVIFO",
    test_ev="MRT Extravasc Infinity Obs",
    cdisc_infusion="MRTICIFO",
    test_infusion="MRT IV Cont Inf Infinity Obs",
)
def _mrt_inf(v: Values) -> NDArray[Any]:
    return v["aumcinf_obs"] / v["aucinf_obs"] - v["infusion_h"] / 2


@_derive(
    "mrt_inf_pred",
    "time",
    "MRTIBIFP",
    "MRT IV Bolus Infinity Pred",
    "mean residence time from the last value on the terminal line",
    depends=("aumcinf_pred", "aucinf_pred"),
    cdisc_ev="MRTEVIFP",
    test_ev="MRT Extravasc Infinity Pred",
    cdisc_infusion="MRTICIFP",
    test_infusion="MRT IV Cont Inf Infinity Pred",
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
    "cl_pred",
    "dose/value/time",
    "CLP",
    "Total CL Pred",
    "clearance: dose / aucinf_pred",
    depends=("aucinf_pred",),
    needs_dose=True,
    routes=IV_ROUTES,
)
@_derive(
    "cl_f_pred",
    "dose/value/time",
    "CLFP",
    "Total CL Pred by F",
    "clearance over the unknown fraction that arrives: dose / aucinf_pred",
    depends=("aucinf_pred",),
    needs_dose=True,
    routes=EXTRAVASCULAR_ROUTES,
)
def _cl_pred(v: Values) -> NDArray[Any]:
    return v["dose"] / v["aucinf_pred"]


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
    "vz_pred",
    "dose/value",
    "VZP",
    "Vz Pred",
    "volume of distribution of the terminal phase: cl_pred / lambda_z",
    depends=("cl_pred", "lambda_z"),
    needs_dose=True,
    routes=IV_ROUTES,
)
@_derive(
    "vz_f_pred",
    "dose/value",
    "VZFP",
    "Vz Pred by F",
    "vz_pred over the unknown fraction that arrives",
    depends=("cl_f_pred", "lambda_z"),
    needs_dose=True,
    routes=EXTRAVASCULAR_ROUTES,
)
def _vz_pred(v: Values) -> NDArray[Any]:
    return v["dose"] / v["aucinf_pred"] / v["lambda_z"]


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


@_derive(
    "vss_pred",
    "dose/value",
    "VSSP",
    "Vol Dist Steady State Pred",
    "volume of distribution at steady state: cl_pred x mrt_inf_pred",
    depends=("cl_pred", "mrt_inf_pred"),
    needs_dose=True,
    routes=IV_ROUTES,
)
def _vss_pred(v: Values) -> NDArray[Any]:
    return v["cl_pred"] * v["mrt_inf_pred"]


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
    "auclast_dose",
    "value*time/dose",
    "AUCLSTD",
    "AUC to Last Nonzero Conc Norm by Dose",
    "auclast / dose",
    depends=("auclast",),
    needs_dose=True,
)
def _auclast_dose(v: Values) -> NDArray[Any]:
    return v["auclast"] / v["dose"]


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


@_derive(
    "aucinf_pred_dose",
    "value*time/dose",
    "AUCIFPD",
    "AUC Infinity Pred Norm by Dose",
    "aucinf_pred / dose",
    depends=("aucinf_pred",),
    needs_dose=True,
)
def _aucinf_pred_dose(v: Values) -> NDArray[Any]:
    return v["aucinf_pred"] / v["dose"]


# partial areas: made for the intervals the user asks for


def partial_area(start: float, end: float) -> Parameter:
    """Return the record of the area between two times.

    Examples
    --------
    >>> partial_area(0, 0.5).name, partial_area(4, 24).cdisc
    ('auc_0_0.5h', 'AUCINT')
    """
    name = f"auc_{start:.12g}_{end:.12g}h"
    what = f"area from {start:.12g} to {end:.12g} h; after the last quantifiable value along lambda_z"
    return Parameter(name, "value*time", "AUCINT", "AUC from T1 to T2", what, depends=("auclast",))


# more than one dose, excretion, tissue: not made by `nca` (so no routes here) but by `dosing_intervals`, `excretion`,
# `tissue` and `dosimetry`; codes from the CDISC codelist C85839 as published on 2026-07-11, empty where it has none


def _beyond(name: str, dimension: str, cdisc: str, test: str, description: str, **more: Any) -> None:
    """Register a parameter of another module than `nca`."""
    PARAMETERS[name] = Parameter(name, dimension, cdisc, test, description, routes=(), **more)


_SHAPE = ("cmax", "cmin")
_beyond(
    "tau", "time", "TAU", "Dosing Interval", "from one dose to the next", no_se="it is set, so it has no standard error"
)
_beyond("cpredose", "value", "", "", "value just before the dose", rests_on="last")
_beyond("ctrough", "value", "CTROUGH", "Conc Trough", "value at the end of the dosing interval", rests_on="last")
_beyond("carryover_pct", "1", "", "", "percent of cmax that was there before the dose", depends=("cpredose", "cmax"))
_beyond("auc_tau", "value*time", "AUCTAU", "AUC Over Dosing Interval", "area from the dose to the next")
_beyond("aumc_tau", "value*time*time", "", "", "area under time times value, from the dose to the next")
_beyond(
    "auc_tau_pct_extrap",
    "1",
    "",
    "",
    "percent of auc_tau after the last sample of the dosing interval",
    depends=("auc_tau",),
)
_beyond("cavg", "value", "CAVG", "Average Concentration", "auc_tau / tau", depends=("auc_tau",))
_beyond(
    "fluctuation_pct",
    "1",
    "FLUCP",
    "Fluctuation%",
    "peak-trough fluctuation: percent of cavg between cmax and cmin",
    depends=(*_SHAPE, "cavg"),
)
_beyond("swing", "1", "SWING", "Swing", "(cmax - cmin) / cmin", depends=_SHAPE)
_beyond("peak_trough_ratio", "1", "PTROUGHR", "Peak Trough Ratio", "cmax / ctrough", depends=("cmax", "ctrough"))
_beyond(
    "cl_ss",
    "dose/value/time",
    "CLTAU",
    "Total CL for Dose Int",
    "clearance at steady state: dose / auc_tau",
    depends=("auc_tau",),
    needs_dose=True,
)
_beyond(
    "cl_f_ss",
    "dose/value/time",
    "CLFTAU",
    "Total CL by F for Dose Int",
    "clearance at steady state over the unknown fraction that arrives",
    depends=("auc_tau",),
    needs_dose=True,
)
_beyond(
    "vz_ss",
    "dose/value",
    "VZTAU",
    "Vz for Dose Int",
    "volume of the terminal phase at steady state: cl_ss / lambda_z",
    depends=("cl_ss", "lambda_z"),
    needs_dose=True,
)
_beyond(
    "vz_f_ss",
    "dose/value",
    "VZFTAU",
    "Vz for Dose Int by F",
    "vz_ss over the unknown fraction that arrives",
    depends=("cl_f_ss", "lambda_z"),
    needs_dose=True,
)
_beyond(
    "mrt_ss",
    "time",
    "",
    "",
    "mean residence time at steady state: (aumc_tau + tau x area after the interval) / auc_tau, less half the infusion",
    depends=("auc_tau", "lambda_z"),
)
_beyond(
    "vss_ss",
    "dose/value",
    "",
    "",
    "volume at steady state: cl_ss x mrt_ss",
    depends=("cl_ss", "mrt_ss"),
    needs_dose=True,
)
_beyond(
    "accumulation_auc",
    "1",
    "ARAUC",
    "Accumulation Ratio AUCTAU",
    "auc_tau over that of the first dose",
    depends=("auc_tau",),
)
_beyond(
    "accumulation_cmax", "1", "ARCMAX", "Accumulation Ratio Cmax", "cmax over that of the first dose", depends=("cmax",)
)
_beyond(
    "accumulation_trough",
    "1",
    "ARCTROUG",
    "Accumulation Ratio Ctrough",
    "ctrough over that of the first dose",
    depends=("ctrough",),
)
_beyond(
    "accumulation_predicted",
    "1",
    "AILAMZ",
    "Accumulation Index using Lambda z",
    "1 / (1 - exp(-lambda_z tau)), what one exponential would accumulate to",
    depends=("lambda_z",),
)
_beyond(
    "time_to_steady_state",
    "time",
    "",
    "",
    "from the first dose to the first trough of the level stretch",
    no_se=_SAMPLING,
)

_beyond("amount_excreted", "amount", "RCAMINT", "Amt Rec from T1 to T2", "sum of the amounts of all collections")
_beyond(
    "pct_excreted",
    "1",
    "RCPCINT",
    "Pct Rec from T1 to T2",
    "percent of the dose excreted by the end of the last collection",
    depends=("amount_excreted",),
    needs_dose=True,
)
_beyond("volume_excreted", "volume", "VOLPK", "Sum of Urine Vol", "sum of the volumes of all collections")
_beyond("collected_amount", "amount", "", "", "amount in one collection", rests_on="peak")
_beyond(
    "excretion_rate",
    "amount/time",
    "ERINT",
    "Excret Rate from T1 to T2",
    "amount in one collection over its duration",
    depends=("collected_amount",),
    rests_on="peak",
)
_beyond("cumulative_amount", "amount", "", "", "amount excreted by the end of one collection")
_beyond(
    "cumulative_pct",
    "1",
    "",
    "",
    "percent of the dose excreted by the end of one collection",
    depends=("cumulative_amount",),
    needs_dose=True,
)
_beyond(
    "excretion_rate_max", "amount/time", "ERMAX", "Max Excretion Rate", "highest amount / duration", rests_on="peak"
)
_beyond(
    "excretion_rate_tmax",
    "time",
    "ERTMAX",
    "Midpoint of Interval of Maximum ER",
    "midpoint of the collection of the highest rate",
    rests_on="peak",
    no_se=_SAMPLING,
)
_beyond("lambda_rate", "1/time", "", "", "slope of ln(rate) on the collections' midpoints", rests_on="terminal")
_beyond("half_life_rate", "time", "", "", "half-life from the rate plot", depends=("lambda_rate",), rests_on="terminal")
_beyond(
    "amount_inf",
    "amount",
    "",
    "",
    "amount excreted for ever, its tail from the rate plot",
    depends=("amount_excreted", "lambda_rate"),
)
_beyond(
    "pct_excreted_inf",
    "1",
    "",
    "",
    "percent of the dose excreted for ever",
    depends=("amount_inf",),
    needs_dose=True,
)
_beyond("amount_pct_extrap", "1", "", "", "percent of amount_inf after the last collection", depends=("amount_inf",))
_beyond(
    "lambda_are",
    "1/time",
    "",
    "",
    "slope of ln(amount remaining to be excreted) on time (sigma-minus plot)",
    rests_on="terminal",
)
_beyond(
    "half_life_are", "time", "", "", "half-life from the sigma-minus plot", depends=("lambda_are",), rests_on="terminal"
)
_beyond(
    "renal_clearance",
    "amount/value/time",
    "RENALCL",
    "Renal CL",
    "amount excreted / area in plasma over the same time",
    depends=("amount_excreted",),
)

_beyond("tissue_blood_ratio", "1", "", "", "value in tissue over value in blood at one time", rests_on="last")
_beyond("kp_last", "1", "", "", "tissue_blood_ratio at the last time both are quantifiable", rests_on="last")
_beyond(
    "uptake_clearance", "amount/value/time", "", "", "amount in the organ / area in blood until then", rests_on="last"
)
_beyond("peak_pct_id", "pct_id", "", "", "highest percent of the injected dose in the organ", rests_on="peak")
_beyond("last_pct_id", "pct_id", "", "", "last quantifiable percent of the injected dose in the organ", rests_on="last")
_beyond("tia_last", "time", "", "", "time-integrated activity to the last sample, per injected activity")
_beyond(
    "tia_effective",
    "time",
    "",
    "",
    "time-integrated activity, its tail at the effective lambda_z",
    depends=("tia_last", "lambda_z"),
)
_beyond(
    "tia_physical", "time", "", "", "time-integrated activity, its tail by physical decay only", depends=("tia_last",)
)
_beyond(
    "tia",
    "time",
    "",
    "",
    "time-integrated activity (residence time), its tail the slower of the two",
    depends=("tia_physical",),
)
for _kind in ("effective", "physical"):
    _beyond(
        f"tia_pct_extrap_{_kind}",
        "1",
        "",
        "",
        f"percent of tia_{_kind} after the last sample",
        depends=(f"tia_{_kind}",),
    )
