"""The pictures of a fit: well-formed, with every matrix, and drawn for hostile names without leaving their folder."""

import numpy as np
from defusedxml import ElementTree

from evbiodist.kinetics.fitting.data import curve_data
from evbiodist.kinetics.fitting.fit import fit
from evbiodist.report.fit_plots import file_name, fit_plots

TIMES = np.array([0.25, 0.5, 1.0, 2.0, 4.0, 8.0])


def words_of(picture):
    return " ".join("".join(t.itertext()) for t in ElementTree.fromstring(picture).iter() if t.tag.endswith("text"))


def test_the_pictures_name_what_they_show():
    values = 20 * np.exp(-0.4 * TIMES) * np.exp(np.random.default_rng(1).normal(0, 0.1, TIMES.size))
    found = fit(curve_data(TIMES, values, unit="pct_id_per_g"), "one_compartment_iv", dose=100)
    words = words_of(fit_plots(found, draws=100))
    for word in ("predicted", "observed", "residual / SD", "blood", "% of dose per g", "one_compartment_iv"):
        assert word in words
    assert fit_plots(found, draws=100) == fit_plots(found, draws=100)


def test_values_below_a_limit_leave_the_simulations_out_and_the_rest_in():
    below = np.array([0, 0, 0, 0, 1, 1], bool)
    values = np.where(below, 6.0, 20 * np.exp(-0.4 * TIMES))
    found = fit(curve_data(TIMES, values, censored=below), "one_compartment_iv", dose=100)
    assert "residual / SD" in words_of(fit_plots(found))


def test_names_stay_in_their_folder():
    assert file_name("../../x", "a/b", "m") == "fit_______x_a_b_m.svg"
