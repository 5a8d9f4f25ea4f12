"""What a design can tell: information by an independent route, known optimal designs, findings in words."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from evbiodist.kinetics.fitting.data import curve_data
from evbiodist.kinetics.fitting.fit import fit
from evbiodist.kinetics.fitting.identify import Plan, _exchanged, identifiability, next_times
from evbiodist.kinetics.fitting.profile import profile
from evbiodist.kinetics.models.catalogue import build

ONE = build("one_compartment_iv")
TWO = build("two_compartment_iv")


def test_planned_errors_are_those_of_differenced_information() -> None:
    theta, t, n, cv = np.array([1.0, 2.0, 1.5, 5.0]), np.array([0.1, 0.5, 2, 6, 12, 24]), 4, 0.3
    u, h = np.log(theta), 1e-5
    J = np.stack([(TWO.predict(np.exp(u + h * e), t, 100.0)[0] - TWO.predict(np.exp(u - h * e), t, 100.0)[0])[:, 0] / (2 * h)
                  for e in np.eye(4)], axis=1)  # fmt: skip
    y = TWO.predict(theta, t, 100.0)[0][:, 0]
    sd = np.hypot(cv * y, 0.005 * y.max()) / np.sqrt(n)
    cov = np.linalg.inv((J / sd[:, None]).T @ (J / sd[:, None]))
    found = identifiability(Plan(TWO, theta, t, animals=n, cv=cv))
    np.testing.assert_allclose(found.cv_pct, 100 * np.sqrt(np.diag(cov)), rtol=1e-6)
    r = cov / np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
    np.testing.assert_allclose(found.correlation, r, atol=1e-6)


def test_too_few_times_and_twins_are_told_by_name() -> None:
    few = identifiability(Plan(TWO, [1.0, 2.0, 1.5, 5.0], [1, 2, 4]))
    assert few.rank == 3
    assert any("cannot be told apart" in w for w in few.words)
    assert "not_identifiable" in few.flags["q"]
    assert np.isnan(few.cv_pct[few.names.index("q")])
    late = identifiability(
        Plan(build("plasma_with_organs", ["liver"]), [2.0, 0.3, 0.4, 0.2], [0.1, 1, 4, 12], fixed={"v": 2.0})
    )
    assert late.rank == len(late.names) == 3


def test_imprecision_and_correlation_are_flagged_from_their_limits() -> None:
    poor = identifiability(Plan(ONE, [0.05, 10.0], [0.1, 0.3, 0.5], animals=3))
    assert "imprecise" in poor.flags["cl"]
    assert any("relative standard error" in w for w in poor.words)
    near = identifiability(Plan(ONE, [2.0, 10.0], [8, 10, 12]))
    assert abs(near.correlation[0, 1]) >= 0.8
    assert near.flags["cl"] == ("correlated",)
    assert any("is known better than either" in w for w in near.words)
    assert identifiability(Plan(ONE, [2.0, 10.0], [0.1, 1, 4, 12], animals=4)).fine


def test_after_the_fit_the_errors_are_the_fits() -> None:
    rng = np.random.default_rng(1)
    t = np.array([0.1, 0.5, 1, 2, 4, 8])
    found = fit(curve_data(t, 10 * np.exp(-0.2 * t + 0.1 * rng.standard_normal(6))), ONE, dose=100)
    told = identifiability(found)
    np.testing.assert_allclose(told.cv_pct, [100 * found[k].se / found[k].value for k in told.names], rtol=1e-9)
    assert told.condition >= 1


def test_flat_profiles_are_told_with_the_parameter() -> None:
    flat = fit(curve_data([0.1, 0.2, 0.3, 0.4, 0.5], [8.1, 7.9, 8.05, 7.95, 8.02]), ONE, dose=16)
    told = identifiability(flat, profile(flat, ["cl", "v"]))
    assert "open_interval" in told.flags["cl"]
    assert "open_interval" not in told.flags["v"]
    assert any("the profile of cl is flat" in w and "no lower limit" in w for w in told.words)


def test_the_best_times_for_a_line_are_its_ends() -> None:
    """With relative errors the logarithm is a straight line in time, whose D-optimal design is both ends."""
    plan = Plan(ONE, [2.0, 10.0], [3.0, 5.0], cv=0.3)
    best = next_times(plan, times=2, candidates=np.linspace(0.01, 8, 41), of="half_life")
    assert sorted(b.time_h for b in best) == pytest.approx([0.01, 8.0])
    assert best[1].se_pct < best[1].se_before_pct == best[0].se_pct < best[0].se_before_pct
    assert "bring the relative standard error" in best[0].words


def test_one_time_is_the_best_of_all() -> None:
    theta, t = [1.0, 2.0, 1.5, 5.0], [0.1, 1, 4, 12]
    candidates = np.geomspace(0.05, 48, 25)
    best = next_times(Plan(TWO, theta, t), candidates=candidates, animals=3)[0]
    half = next_times(Plan(TWO, theta, t), candidates=candidates, animals=3, of="half_life", criterion="se")[0]

    def logdet_and_se(c: float) -> tuple[float, float]:
        longer = identifiability(Plan(TWO, theta, [*t, c]))
        cov = longer.correlation * np.outer(longer.cv_pct, longer.cv_pct) / 1e4
        from evbiodist.kinetics.fitting.quantities import quantity
        from evbiodist.kinetics.models.solve import bolus

        value, slope = quantity(TWO, "half_life", bolus(TWO, t, 100.0), 12.0)(np.array([theta]))
        a = slope[0] / value[0]
        return -np.linalg.slogdet(cov)[1], 100 * float(np.sqrt(a @ cov @ a))

    # candidates within the sampled range keep the floor of the error the same for both routes
    brute = np.array([logdet_and_se(c) for c in candidates if c >= 0.1])
    inside = candidates[candidates >= 0.1]
    within = next_times(Plan(TWO, theta, t), candidates=inside, animals=3)[0]
    assert within.time_h == pytest.approx(inside[np.argmax(brute[:, 0])])
    assert half.se_pct == pytest.approx(brute[:, 1].min(), rel=1e-4)
    assert best.gain >= within.gain - 1e-9


def test_exchange_finds_what_trying_all_finds() -> None:
    rng = np.random.default_rng(3)
    worse = 0
    for _ in range(20):
        added = np.einsum("tq,tr->tqr", *[rng.standard_normal((8, 3))] * 2)
        base = 0.01 * np.eye(3)

        def worth(m):
            return np.linalg.slogdet(m)[1]

        chosen = _exchanged(base, added, worth, 3)
        best = max(
            float(worth(base + added[list(c)].sum(axis=0)))
            for c in itertools.combinations_with_replacement(range(8), 3)
        )
        mine = float(worth(base + added[chosen].sum(axis=0)))
        assert mine <= best + 1e-12
        worse += mine < best - 1e-9
    assert worse <= 4  # exchanges of one time may end beside the best


def test_what_is_no_plan_is_said() -> None:
    with pytest.raises(ValueError, match=r"theta has shape \(3,\), expected 2 finite numbers for cl, v"):
        Plan(ONE, [1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="expected a list of finite sampling times"):
        Plan(ONE, [1, 2], [])
    with pytest.raises(ValueError, match="animals has 0, expected 1 or more"):
        Plan(ONE, [1, 2], [1, 2], animals=0)
    with pytest.raises(ValueError, match="cv has 0, expected a number above 0"):
        Plan(ONE, [1, 2], [1, 2], cv=0)
    plan = Plan(ONE, [2.0, 10.0], [1, 4])
    with pytest.raises(ValueError, match="times has 0 and animals 3, expected 1 or more"):
        next_times(plan, times=0)
    with pytest.raises(ValueError, match="criterion has 'se' and of None"):
        next_times(plan, criterion="se")
    with pytest.raises(ValueError, match="candidates must be finite times"):
        next_times(plan, candidates=[-1.0])
    with pytest.raises(ValueError, match="'brain' cannot be followed"):
        next_times(plan, of="brain")
