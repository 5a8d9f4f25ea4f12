"""Write docs/reference.md from the registries: models, PK parameters, flags, readers, footprints.

python docs/make_reference.py
"""

from __future__ import annotations

from pathlib import Path

from evbiodist.imaging.footprints import FOOTPRINTS
from evbiodist.io.registry import readers
from evbiodist.kinetics.models.catalogue import build, catalogue, needs_organs
from evbiodist.kinetics.nca.parameters import PARAMETERS
from evbiodist.study.flags import FLAGS


def main() -> None:
    """Write the page."""
    lines = [
        "# Reference",
        "",
        "Made by `python docs/make_reference.py` from the registries in the code.",
        "",
        "## Models",
        "",
    ]
    for name in catalogue():
        graph = build(name, ["organ"] if needs_organs(name) else ())
        lines += [
            f"### `{name}`",
            "",
            f"{graph.title}. {graph.source}.",
            "",
            "```",
            *graph.diagram(),
            "",
            *graph.equations(),
            "```",
            "",
        ]
        lines += [f"- `{p.name}`: {p.description}" for p in graph.parameters] + [""]
    lines += ["## NCA parameters", "", "| name | CDISC | dimension | what it is |", "|---|---|---|---|"]
    lines += [f"| `{p.name}` | {p.cdisc or ''} | {p.dimension} | {p.description} |" for p in PARAMETERS.values()]
    lines += ["", "## Flags", "", "| flag | meaning | remedy |", "|---|---|---|"]
    lines += [f"| `{f.name}` | {f.meaning} | {f.remedy} |" for f in FLAGS.values()]
    lines += ["", "## Readers", ""] + [f"- `{r.name}`: {r.description}" for r in readers()]
    lines += ["", "## Footprints", ""] + [f"- `{k.name}`: {k.description}" for k in FOOTPRINTS.values()]
    lines += ["- `optical`: light of organs through the animal's tissue, anatomy inferred from all images of an animal"]
    Path(__file__).with_name("reference.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
