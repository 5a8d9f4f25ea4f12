"""Laws of dosing intervals, excretion and dosimetry: what must hold for any profile."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evbiodist.kinetics.nca.delta import Quantities
from evbiodist.kinetics.nca.dosimetry import time_integrated_activity
from evbiodist.kinetics.nca.dosing_intervals import dosing_intervals
from evbiodist.kinetics.nca.excretion import excretion
from evbiodist.kinetics.nca.nca import nca

ROUTE = st.sampled_from(["iv_bolus", "oral", "tissue"])
METHOD = st.sampled_from(["linear", "lin-up-log-down", "lin-log", "log"])
SAME = ("cmax", "tmax", "cmin", "tmin", "clast", "tlast", "lambda_z", "half_life")


@st.composite
def courses(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, positive values and doses: one to three intervals of 8 h with two to five samples each."""
    count = draw(st.integers(1, 3))
    t, c = [], []
    for k in range(count):
        at = draw(st.lists(st.integers(1, 63), min_size=3, max_size=5, unique=True))
        t += [8 * k + x / 8 for x in sorted(at)] + [8.0 * (k + 1)]
        c += draw(st.lists(st.integers(1, 4000), min_size=len(at) + 1, max_size=len(at) + 1))
    return np.array(t), np.array(c) / 16, np.arange(count) * 8.0


def same(a: Quantities, b: Quantities, factor: dict[str, float] | None = None, **tolerance: float) -> None:
    for name, value in a.values.items():
        by = (factor or {}).get(name, 1.0)
        np.testing.assert_allclose(b.values[name], value * by, err_msg=name, **(tolerance or {"rtol": 1e-9}))
        np.testing.assert_allclose(b.se[name], a.se[name] * by, err_msg=name, **(tolerance or {"rtol": 1e-7}))


@settings(deadline=None, max_examples=15)
@given(courses(), METHOD, ROUTE)
def test_one_interval_is_a_single_dose(course: tuple, method: str, route: str) -> None:
    """A dose, and an interval that ends with the last sample: `nca` of that profile, errors included."""
    t, c, _ = course
    found = dosing_intervals(t, c, [0], tau_h=t[-1], route=route, method=method, se=0.1 * c)[0, 0]
    single = nca(t, c, route=route, method=method, se=0.1 * c)
    for ours, theirs in (*((name, name) for name in SAME), ("auc_tau", "auclast"), ("aumc_tau", "aumclast")):
        a, b = found[ours], single[theirs]
        assert a.value == pytest.approx(b.value, rel=1e-9, nan_ok=True), ours
        assert a.se == pytest.approx(b.se, rel=1e-6, abs=1e-12, nan_ok=True), ours
        assert bool(a.reason) >= np.isnan(a.value)


@settings(deadline=None, max_examples=10)
@given(courses(), METHOD, ROUTE, st.sampled_from([0.125, 8.0, 1024.0]))
def test_values_scale(course: tuple, method: str, route: str, factor: float) -> None:
    """Other units of the values: areas follow, shares and rates do not, clearance goes the other way."""
    t, c, doses = course
    common = {"route": route, "method": method, "dose": 7.0, "steady_state": True, "tau_h": 8.0}
    before = dosing_intervals(t, c, doses, se=0.1 * c, **common).parameters
    after = dosing_intervals(t, factor * c, doses, se=0.1 * factor * c, **common).parameters
    up = dict.fromkeys(("auc_tau", "aumc_tau", "cavg", "ctrough", "cpredose", "cmax", "cmin", "clast", "c0"), factor)
    down = dict.fromkeys(("cl_ss", "cl_f_ss", "vz_ss", "vz_f_ss", "vss_ss"), 1 / factor)
    same(before, after, up | down)


@settings(deadline=None, max_examples=8)
@given(courses(), ROUTE, st.integers(0, 5))
def test_dose_is_linear_and_time_has_no_origin(course: tuple, route: str, shift: int) -> None:
    """Twice the dose, twice the clearance and nothing else; a clock that starts earlier changes nothing."""
    t, c, doses = course
    common = {"route": route, "steady_state": True, "tau_h": 8.0, "se": 0.1 * c}
    before = dosing_intervals(t, c, doses, dose=5.0, **common).parameters
    after = dosing_intervals(t + 16 * shift, c, doses + 16 * shift, dose=10.0, **common).parameters
    same(before, after, dict.fromkeys(("cl_ss", "cl_f_ss", "vz_ss", "vz_f_ss", "vss_ss"), 2.0))


@settings(deadline=None, max_examples=4)
@given(st.lists(courses(), min_size=2, max_size=5), ROUTE, st.randoms())
def test_order_and_company_of_profiles(many: list, route: str, random: object) -> None:
    """Profiles are strangers to each other: together, in any order, or alone, the numbers are the same."""
    size, count = max(len(t) for t, _, _ in many), max(len(d) for _, _, d in many)
    random.shuffle(many)  # type: ignore[attr-defined]
    t, c, doses = (
        np.full((len(many), size), np.nan),
        np.full((len(many), size), np.nan),
        np.full((len(many), count), np.nan),
    )
    for i, (times, values, given_at) in enumerate(many):
        t[i, : len(times)], c[i, : len(times)], doses[i, : len(given_at)] = times, values, given_at
    table = dosing_intervals(t, c, doses, se=0.1 * c, route=route, tau_h=8.0)
    for i, (times, values, given_at) in enumerate(many):
        alone = dosing_intervals(times, values, given_at, se=0.1 * values, route=route, tau_h=8.0)
        for k in range(len(given_at)):
            for name, a in alone[0, k].items():
                b = table[i, k][name]
                assert (a.reason, a.flags, a.n) == (b.reason, b.flags, b.n), name
                assert b.value == pytest.approx(a.value, rel=1e-12, nan_ok=True)
                assert b.se == pytest.approx(a.se, rel=1e-9, abs=1e-12, nan_ok=True)


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(1, 999), min_size=3, max_size=8), st.integers(0, 7), st.sampled_from([0.125, 8.0]))
def test_collections_add_up(amounts: list[int], cut: int, factor: float) -> None:
    """Two collections poured together change no sum; amounts in other units only scale."""
    edges = np.arange(len(amounts) + 1.0)
    x = np.array(amounts, dtype=float)
    whole = excretion(edges[:-1], edges[1:], x, se=0.1 * x, dose=1e4, dose_unit="mg", unit="mg").parameters
    k = min(cut, len(x) - 2)
    joined = np.delete(x, k + 1)
    joined[k] += x[k + 1]
    fewer = np.delete(edges, k + 1)
    merged = excretion(fewer[:-1], fewer[1:], joined, dose=1e4, dose_unit="mg", unit="mg").parameters
    assert merged.values["amount_excreted"] == pytest.approx(whole.values["amount_excreted"])
    scaled = excretion(edges[:-1], edges[1:], factor * x, se=0.1 * factor * x, dose=1e4, dose_unit="mg", unit="mg")
    up = ("amount_excreted", "pct_excreted", "excretion_rate_max", "amount_inf", "pct_excreted_inf")
    same(whole, scaled.parameters, dict.fromkeys(up, factor))


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(1, 999), min_size=4, max_size=8), st.floats(1.0, 100.0))
def test_decay_undone_and_redone(values: list[int], half_life: float) -> None:
    """Decay-corrected values and the activities they stand for give one time-integrated activity."""
    t = np.arange(1.0, len(values) + 1) * 4
    x = np.array(values) / 20
    decay = np.exp(-np.log(2) / half_life * t)
    a = time_integrated_activity(t, x, decay_corrected=True, half_life_h=half_life, se=0.1 * x)
    b = time_integrated_activity(t, x * decay, decay_corrected=False, half_life_h=half_life, se=0.1 * x * decay)
    same(a, b, rtol=1e-6)
    v = {name: a.values[name][0] for name in a.values}
    assert v["tia"] >= v["tia_last"]
    assert v["tia"] == np.nanmax([v["tia_effective"], v["tia_physical"]])
