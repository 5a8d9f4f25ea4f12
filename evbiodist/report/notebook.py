"""How the public objects show themselves in Jupyter: a table, and a figure where there is a curve.

The classes live in lower rooms, which must not know reports, so IPython is told here by their names; nothing of theirs is
imported before one is shown.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any

_ROWS = 30


def register() -> None:
    """Tell a running IPython how to show our objects; without one nothing happens."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is None:
        return
    html = shell.display_formatter.formatters["text/html"]
    for (module, name), show in SHOWN.items():
        html.for_type_by_name(module, name, show)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str) -> str:
    """Return an HTML table; text is escaped, long ones end with how many rows are left."""
    from evbiodist.report.words import number

    listed = [list(row) for row in rows]
    cells = [[number(c) if isinstance(c, float) else str(c) for c in row] for row in listed[:_ROWS]]
    body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in cells)
    left = f"<p>{len(listed) - _ROWS} further rows</p>" if len(listed) > _ROWS else ""
    return (f"<table><caption>{escape(caption)}</caption><thead><tr>" + "".join(f"<th>{escape(h)}</th>" for h in head)
            + f"</tr></thead><tbody>{body}</tbody></table>{left}")  # fmt: skip


def _estimates(estimates: Iterable[Any], caption: str) -> str:
    rows = [
        (e.name, float(e.value), float(e.ci_low), float(e.ci_high), e.unit, e.n, ", ".join(e.flags), e.reason)
        for e in estimates
    ]
    return _table(("parameter", "value", "from", "to", "unit", "n", "flags", "reason"), rows, caption)


def _picture(drawn: str, name: str) -> str:
    """Return a figure as an image, so that its styles stay its own."""
    from evbiodist.report.svg import standalone

    data = base64.b64encode(standalone(drawn).encode()).decode()
    return f'<img alt="{escape(name, quote=True)}" src="data:image/svg+xml;base64,{data}">'


def show_fit(fit: Any) -> str:
    """Return a fitted model: its parameters, and points with the fitted curve."""
    words = f"{fit.model}: {fit.data.value.size} values, AICc {fit.aicc:.4g}"
    return _estimates(fit.estimates, words) + _picture(
        _fit_figure(fit), f"observed and fitted: {', '.join(fit.data.seen)}"
    )


def _fit_figure(fit: Any) -> str:
    import numpy as np

    from evbiodist.report import svg

    data, last = fit.data, float(fit.data.time_h.max())
    grid = np.linspace(0.0, last, 80)
    curves = {name: np.asarray(found[0]) for name, found in fit.predict(grid).items()}
    shown = np.r_[data.value, *curves.values()]
    x, y = svg.Scale(0.0, last, 50, 430), svg.covering(shown[np.isfinite(shown)], 200, 12, zero=True)
    parts = [svg.axes(x, y, "hours after dose", ", ".join(dict.fromkeys(data.unit)))]
    for slot, (name, curve) in enumerate(curves.items()):
        mine = data.which == data.seen.index(name)
        marks = [svg.path([(x(t), y(v)) for t, v in zip(grid, curve, strict=True)], "l")]
        marks += [
            svg.marker(slot % svg.N_MARKERS, x(t), y(v))
            for t, v in zip(data.time_h[mine], data.value[mine], strict=True)
        ]
        parts += [svg.series(slot % svg.N_COLOURS, [*marks, svg.label(440, 20 + 15 * slot, name)])]
    return svg.figure(540, 240, parts)


def show_nca(result: Any) -> str:
    """Return the parameters of one profile."""
    return _estimates(result.estimates.values(), "non-compartmental parameters")


def show_estimate(estimate: Any) -> str:
    """Return one number with its uncertainty."""
    return _estimates([estimate], estimate.method)


def show_study(study: Any) -> str:
    """Return who got what, and what there is of it."""
    groups: dict[tuple[str, str], int] = {}
    for s in study.subjects:
        groups[s.group, s.label] = groups.get((s.group, s.label), 0) + 1
    words = f"{study.name}: {study.species}, {len(study.scans)} scans, {len(study.observation_sources)} tables"
    return _table(("group", "label", "animals"), [(*k, n) for k, n in sorted(groups.items())], words)


def show_scan(scan: Any) -> str:
    """Return what an image is."""
    return _table(("", ""), scan.describe(), scan.name)


def show_signals(signals: Any) -> str:
    """Return the signal of every organ of an image."""
    columns = (
        signals.organs,
        signals.value,
        signals.covariance.diagonal() ** 0.5,
        signals.se_systematic,
        signals.flags,
    )
    rows = [(o, float(v), float(s), float(k), ", ".join(f)) for o, v, s, k, f in zip(*columns, strict=True)]
    return _table(("organ", signals.unit, "se", "shared se", "flags"), rows, "organ signals")


def show_run(result: Any) -> str:
    """Return what a run found: counts, what failed, the headline rows, and where the report is."""
    where = f" in {result.out}" if result.out else ""
    words = f"{len(result.observations)} values, {len(result.parameters)} parameters, {len(result.failures)} failures{where}"
    rows = [(r["group"], r["quantity"], r["label"], float(r["estimate"]), float(r["ci_low"]), float(r["ci_high"]), r["unit"])
            for r in result.consensus if str(r["quantity"]).endswith("_uptake_pct_id")]  # fmt: skip
    if rows:
        return _table(("group", "quantity", "label", "estimate", "from", "to", "unit"), rows, words)
    few = [(r["label"], r["organ"], r["parameter"], float(r["value"]), float(r["ci_low"]), float(r["ci_high"]), r["unit"])
           for r in result.parameters]  # fmt: skip
    return _table(("label", "organ", "parameter", "value", "from", "to", "unit"), few, words)


def show_crossvalidation(found: Any) -> str:
    """Return the consensus of labels."""
    rows = found.consensus[["quantity", "label", "estimate", "ci_low", "ci_high", "unit"]].itertuples(index=False)
    return _table(("quantity", "label", "estimate", "from", "to", "unit"), rows, "labels and their consensus")


#: What shows an object, by the module and name of its class.
SHOWN: dict[tuple[str, str], Callable[[Any], str]] = {
    ("evbiodist.kinetics.fitting.fit", "FitResult"): show_fit,
    ("evbiodist.kinetics.nca.nca_result", "NcaResult"): show_nca,
    ("evbiodist.study.estimate", "Estimate"): show_estimate,
    ("evbiodist.study.model", "Study"): show_study,
    ("evbiodist.io.scan", "Scan"): show_scan,
    ("evbiodist.imaging.quantify", "OrganSignals"): show_signals,
    ("evbiodist.batch.pipeline", "RunResult"): show_run,
    ("evbiodist.api", "CrossValidation"): show_crossvalidation,
}
