"""Run the RO-Crate validator on a folder and print what it finds as JSON: python validate_crate.py FOLDER.

It runs in an environment of its own, because its requirements and napari's exclude each other, and without a network: the
context of RO-Crate comes from the package rocrate.
"""

import json
import sys
from importlib.resources import files

import requests
from rocrate_validator import models, services
from rocrate_validator.utils.http import HttpRequester

CONTEXT = (files("rocrate") / "data" / "ro-crate.jsonld").read_bytes()


def context(url, *args, **kwargs):
    """Answer a request for the context of RO-Crate; nothing else is asked for."""
    if not url.startswith("https://w3id.org/ro/crate/"):
        raise RuntimeError(f"unexpected request: {url}")
    reply = requests.Response()
    reply.status_code, reply.url, reply._content = 200, url, CONTEXT
    reply.headers["Content-Type"] = "application/ld+json"
    return reply


HttpRequester.__getattr__ = lambda self, name: context
found = {}
for severity in (models.Severity.REQUIRED, models.Severity.RECOMMENDED):
    settings = services.ValidationSettings(rocrate_uri=sys.argv[1], profile_identifier="ro-crate-1.1",
                                           requirement_severity=severity)  # fmt: skip
    result = services.validate(settings)
    found[severity.name] = [f"{issue.check.identifier}: {issue.message}" for issue in result.get_issues(severity)]
print(json.dumps(found))
