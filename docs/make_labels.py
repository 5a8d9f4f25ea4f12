"""Write docs/labels.md: the catalogue of labels as tables, and how to add a label to a study.

python docs/make_labels.py
"""

from __future__ import annotations

from pathlib import Path

from evbiodist.study.labels import CONTROLS, NUISANCE, PER_ORGAN, LabelEntry, Prior, catalogue, templates

HEAD = """# Labels

No label is faithful. The catalogue holds what is known of each: physics, ways to mislead, the controls it calls for, and priors on
nuisance parameters, every number with its source. `evbiodist labels` lists it, `evbiodist labels DiR` prints all of one label.
Numbers that nobody measured say *judgement*; papers not read in the original say *(check)*. Ranges are wide where knowledge is thin.

This page is made by `python docs/make_labels.py` from `evbiodist/data/labels.toml`.
"""

ADD = """
## In a study

A label of the catalogue needs no more than its name; kind, isotope and wavelengths come from the catalogue where study.toml
leaves them out. Case and separators do not matter (`In-111`, `nluc`). The entry is the one that `catalogue` names, else the one of
the label's name, else of its isotope, else a wide generic one of its kind; a name whose kind or isotope the study contradicts is not
matched. A label of your own stands fully in study.toml:

```toml
name = "own label"

[labels.DiR]                              # kind and wavelengths from the catalogue
readout = "homogenate"                    # whole_organ unless said

[labels."batch 7"]
catalogue = "111In"

[labels.MyDye]                            # not in the catalogue: wide priors of its kind, and these
kind = "fluorescence"
emission_nm = 720

[labels.MyDye.priors.free_fraction]
median = 0.05
low = 0.02
high = 0.12
source = "dye-only arm, column fractions"

[labels.MyDye.priors.efficiency.brain]    # one organ
median = 0.6
low = 0.4
high = 0.9
source = "spiked brains against homogenates"

[tables]
observations = ["observations.csv"]
```

`low` to `high` is the central 95 % range of a log-normal prior (logit-normal for `free_fraction`). A prior that the study gives
replaces the catalogue's; one without an organ replaces those of all organs. In Python:

```python
from evbiodist.study.labels import find, label_model
from evbiodist.study.model import Label

model = label_model("NanoLuc", Label(kind="bioluminescence"), readout="whole_organ")
print(model.prior("efficiency", "brain"), model.absolute)
print(find("nluc").artefacts[0].what)
rat = model.at_weight(250.0)
```

Amounts hold for a mouse of 20 g. For another weight `free_v` grows with body weight (it stays the same multiple of the blood volume)
and the other `free_` rates fall with its fourth root: `at_weight`.
"""


def _range(p: Prior) -> str:
    return f"{p.median:g} ({p.low:g}-{p.high:g})"


def _row(e: LabelEntry) -> str:
    rates = [_range(e.priors[name]) for name in ("free_fraction", "release", "transfer", "clearance", "loss")]
    return (
        "| "
        + " | ".join(
            [e.name, e.physics(), ", ".join(sorted(e.readings, key=lambda r: r != e.readout)), *rates, e.template]
        )
        + " |"
    )


def page() -> str:
    """Return the page's text."""
    entries = catalogue().values()
    lines = [HEAD, "## Nuisance parameters", "", "| name | unit | what it is |", "|---|---|---|"]
    lines += [f"| `{n}`{' *' if n in PER_ORGAN else ''} | {unit} | {what} |" for n, (unit, what) in NUISANCE.items()]
    lines += ["", "\\* may differ by organ.", ADD, "## Catalogue", "",
              "Rates per hour, median (95 % range); the first reading is the usual one.", "",
              "| label | physics | read by | free_fraction | release | transfer | clearance | loss | free label |",
              "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    lines += [_row(e) for e in entries]
    lines += ["", "## Where free label goes", "", "| name | distribution |", "|---|---|"]
    lines += [f"| {name} | {what} |" for name, what in templates().items()]
    lines += ["", "## Controls", ""] + [f"- `{name}`: {what}" for name, (what, _) in CONTROLS.items()]
    lines += ["", "## How each misleads", ""]
    for e in entries:
        lines += [
            f"### {e.name}",
            "",
            f"{e.description[0].upper()}{e.description[1:]}. Controls: {', '.join(e.controls)}.",
            "",
        ]
        lines += [f"- {a.what}: {a.consequence} ({a.source})" for a in e.artefacts] + [""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("labels.md").write_text(page(), encoding="utf-8")
