"""A fit's diagnostics as one SVG: observed against predicted, residuals over time, and simulated studies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evbiodist.kinetics.fitting.diagnostics import predictive_check, residuals
from evbiodist.report.figures import COLOURS, UNITS

if TYPE_CHECKING:
    from evbiodist.kinetics.fitting.fit import FitResult

_SEED = 20150601
_FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"


def fit_plots(found: FitResult, *, draws: int = 300) -> str:
    """Return an SVG with the pictures a reviewer of a fit looks at.

    Parameters
    ----------
    found : a fit.
    draws : simulated studies of the visual predictive check, 100 or more.

    Returns
    -------
    str : three rows. Observed against predicted on logarithms; residuals in standard deviations over time, which should
        scatter between -2 and 2; and per matrix the values with the 5th, 50th and 95th percentile of simulated studies
        (shaded: where 90 % of those percentiles lie). Values known only to be below a limit are left out.

    Examples
    --------
    >>> from evbiodist.kinetics.fitting.data import curve_data
    >>> from evbiodist.kinetics.fitting.fit import fit
    >>> found = fit(curve_data([1, 2, 3, 4], [8.1, 4.0, 1.9, 1.02]), "one_compartment_iv", dose=16)
    >>> fit_plots(found, draws=100)[:4]
    '<svg'
    """
    import altair as alt
    import pandas as pd

    r = residuals(found)
    names = sorted(set(r.matrix))
    colour = alt.Color("matrix:N", scale=alt.Scale(domain=names, range=[COLOURS[i % len(COLOURS)] for i in range(len(names))]),
                       title=None)  # fmt: skip
    table = pd.DataFrame({"matrix": r.matrix, "time_h": r.time_h, "observed": r.observed, "predicted": r.predicted,
                          "residual": r.standardised})  # fmt: skip
    positive = table[(table["observed"] > 0) & (table["predicted"] > 0)]
    ends = pd.DataFrame(
        {"v": [positive[["observed", "predicted"]].min().min(), positive[["observed", "predicted"]].max().max()]}
    )
    log = alt.Scale(type="log", nice=False, padding=8)
    same = (
        alt.Chart(ends)
        .mark_line(color="#777", strokeDash=[4, 3])
        .encode(x=alt.X("v:Q", scale=log), y=alt.Y("v:Q", scale=log))
    )
    agreement = same + alt.Chart(positive).mark_point(filled=True, size=36, opacity=0.8).encode(
        x=alt.X("predicted:Q", scale=log, title="predicted"),
        y=alt.Y("observed:Q", scale=log, title="observed"),
        color=colour,
    )
    lines = (
        alt.Chart(pd.DataFrame({"level": [-2.0, 0.0, 2.0]}))
        .mark_rule(color="#777", strokeDash=[4, 3])
        .encode(y="level:Q")
    )
    over_time = lines + alt.Chart(table).mark_point(filled=True, size=36, opacity=0.8).encode(
        x=alt.X("time_h:Q", title="hours"), y=alt.Y("residual:Q", title="residual / SD"), color=colour
    )
    top = alt.hconcat(agreement.properties(width=300, height=240), over_time.properties(width=420, height=240))
    rows: list[Any] = [top]
    shown = _simulated(found, table, draws)
    if shown:
        rows.append(alt.concat(*shown, columns=3))
    return _svg(alt.vconcat(*rows).properties(title=f"{found.model}: {found.graph.title}"))


def _simulated(found: FitResult, table: Any, draws: int) -> list[Any]:
    """Return one chart a matrix; none where values are known only to be below a limit."""
    import altair as alt
    import pandas as pd

    if found.data.censored.any():
        return []
    check = predictive_check(found, draws=draws, seed=_SEED)
    charts = []
    for place, matrix in enumerate(found.data.seen):
        bands = pd.concat([pd.DataFrame({"time_h": b.time_h, "low": b.low, "middle": b.middle, "high": b.high,
                                         "percentile": f"{b.percentile:g}th"})
                           for b in check.bands if b.matrix == matrix])  # fmt: skip
        unit = found.data.unit[place]
        y_title = UNITS.get(unit, unit)
        base = alt.Chart(bands).encode(x=alt.X("time_h:Q", title="hours"), detail="percentile:N")
        points = (
            alt.Chart(table[table["matrix"] == matrix])
            .mark_point(size=26, color="#222")
            .encode(x="time_h:Q", y=alt.Y("observed:Q", title=y_title))
        )
        band = base.mark_area(opacity=0.25, color=COLOURS[0]).encode(y=alt.Y("low:Q", title=y_title), y2="high:Q")
        line = base.mark_line(color=COLOURS[0], strokeWidth=1).encode(y=alt.Y("middle:Q", title=y_title))
        charts.append((band + line + points).properties(width=230, height=150, title=matrix))
    return charts


def _svg(chart: Any) -> str:
    """Return an Altair chart as SVG text, without a browser."""
    import vl_convert

    chart = chart.configure(font="sans-serif", background="white").configure_view(stroke="#ddd")
    drawn = str(vl_convert.vegalite_to_svg(chart.to_dict(validate=False)))
    return drawn.replace('font-family="sans-serif"', f'font-family="{_FONT}"')


def file_name(label: str, group: str, model: str) -> str:
    """Return a safe name for the picture of one fit.

    Examples
    --------
    >>> file_name("111In", "ex vivo/2", "plasma_with_organs")
    'fit_111In_ex_vivo_2_plasma_with_organs.svg'
    """
    words = "_".join((label, group, model))
    return f"fit_{''.join(c if c.isalnum() or c in '_-' else '_' for c in words)}.svg"
