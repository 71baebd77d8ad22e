"""SARIF 2.1.0 (OASIS standard): the log file of one run, for code scanning and dashboards.

``jaula verify``, ``jaula audit`` and ``jaula image audit`` use it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from jaula import __version__

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"


def log(
    tool: str, time: str, rules: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Return the log file as Python values, with one run. Pure.

    ``tool`` is the command; ``time`` is RFC 3339 in UTC.
    """
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": tool,
                        "version": __version__,
                        "semanticVersion": semantic_version(__version__),
                        "rules": list(rules),
                    }
                },
                "invocations": [{"executionSuccessful": True, "endTimeUtc": time}],
                "results": list(results),
                "columnKind": "unicodeCodePoints",
            }
        ],
    }


def rule(id: str, title: str, text: str, tags: Sequence[str], help: str = "") -> dict[str, Any]:
    """Return the description of a rule; ``help`` is left out if it is empty. Pure."""
    return {
        "id": id,
        "name": title,
        "shortDescription": {"text": title},
        "fullDescription": {"text": text},
        **({"help": {"text": help}} if help else {}),
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["security", *tags]},
    }


def result(
    rule: tuple[str, int],
    kind: tuple[str, str],
    message: str,
    location: dict[str, Any],
    fingerprints: dict[str, str],
    properties: dict[str, str],
) -> dict[str, Any]:
    """Return a result. Pure.

    ``rule`` is its id and its index; ``kind`` is (kind, level): a level other than none is valid
    with kind fail only (SARIF 3.27.10).
    """
    return {
        "ruleId": rule[0],
        "ruleIndex": rule[1],
        "kind": kind[0],
        "level": kind[1],
        "message": {"text": message},
        "locations": [location],
        "partialFingerprints": fingerprints,
        "properties": properties,
    }


def resource(name: str, qualified_name: str) -> dict[str, Any]:
    """Return the location of a result that is about a resource, not a line of a file. Pure."""
    return {
        "logicalLocations": [
            {"name": name, "fullyQualifiedName": qualified_name, "kind": "resource"}
        ]
    }


def render(document: dict[str, Any]) -> str:
    """Return indented ASCII JSON, because evidence may contain bytes that are not text."""
    return json.dumps(document, indent=2)


def fingerprint(*words: str) -> str:
    """Return a fingerprint that is equal in every report on the same subject. Pure."""
    return sha256("\n".join(words).encode("utf-8", "surrogateescape")).hexdigest()


def semantic_version(version: str) -> str:
    """Return a version as three numbers (semver.org). Pure."""
    head = version.split("+")[0].split(".")
    numbers = [part for part in head if part.isdigit()][:3]
    return ".".join([*numbers, "0", "0", "0"][:3])
