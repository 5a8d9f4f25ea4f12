"""Write the JSON Schemas of study.toml and its tables: python scripts/write_schemas.py."""

import json
from pathlib import Path

from evbiodist.report.exports.columns import columns
from evbiodist.study.schemas import headed, make_schemas

FOLDER = Path(__file__).resolve().parents[1] / "evbiodist" / "data" / "schemas"


def of_results():
    """Return the schemas of a row of each table that a run writes; a value that is not there is null."""
    made = {}
    for name, table in columns().items():
        fields = {c.name: {"type": c.type if c.type == "string" else [c.type, "null"], "description": c.meaning}
                  | ({"unit": c.unit} if c.unit else {}) for c in table.values()}  # fmt: skip
        made[name] = headed(name, {"title": f"A row of {name}.csv", "type": "object", "properties": fields,
                                   "required": list(fields), "additionalProperties": False})  # fmt: skip
    return made


def texts():
    """Return the files' text by name; a table that is input too has the schema of the input."""
    return {
        f"{name}.schema.json": json.dumps(made, indent=1, sort_keys=True) + "\n"
        for name, made in (of_results() | make_schemas()).items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
