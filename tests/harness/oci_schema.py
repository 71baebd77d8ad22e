"""The JSON schemas of the OCI runtime specification, packaged by Debian (version 1.2.0)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

SCHEMAS = Path("/usr/share/gocode/src/github.com/opencontainers/runtime-spec/schema")


def problems(schema: str, document: object) -> list[str]:
    """Return the violations of the schema by a document, one line each."""

    def read(uri: str) -> Resource[Any]:
        name = uri.rsplit("/", 1)[-1]
        return Resource(contents=json.loads((SCHEMAS / name).read_text()), specification=DRAFT4)

    contents = json.loads((SCHEMAS / schema).read_text())
    validator = Draft4Validator(contents, registry=Registry(retrieve=read))
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in validator.iter_errors(document)
    ]
