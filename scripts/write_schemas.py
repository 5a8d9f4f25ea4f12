"""Write the JSON Schemas of study.toml and its tables: python scripts/write_schemas.py."""

import json
from pathlib import Path

from evbiodist.study.schemas import make_schemas

FOLDER = Path(__file__).resolve().parents[1] / "evbiodist" / "data" / "schemas"


def texts():
    """Return the files' text by name."""
    return {
        f"{name}.schema.json": json.dumps(made, indent=1, sort_keys=True) + "\n"
        for name, made in make_schemas().items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in texts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
