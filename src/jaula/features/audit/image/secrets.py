"""Secrets by name and form. Pure.

A name counts for variables only, since a file has any. The value is never shown: evidence of a
report would make it known to more people.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_NAME = re.compile(
    r"(?:^|_)(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY"
    r"|CREDENTIALS)(?:_|\Z)",
    re.IGNORECASE,
)
_ASSIGNMENT = re.compile(r"\b([A-Za-z_][A-Za-z0-9_]{0,63})=(\S+)")
_FORMS: tuple[tuple[str, tuple[bytes, ...], re.Pattern[bytes]], ...] = (
    ("a private key", (b"PRIVATE KEY",),
     re.compile(rb"-----BEGIN [A-Z ]{0,20}PRIVATE KEY(?: BLOCK)?-----"
                rb"(?:\\n|\s|[A-Za-z-]+: [^\n]{0,200}\n){1,20}[A-Za-z0-9+/=]{32}")),
    ("an AWS access key", (b"AKIA", b"ASIA"),
     re.compile(rb"\b(?:AKIA|ASIA)(?![0-9A-Z]{9}EXAMPLE)[0-9A-Z]{16}\b")),
    ("an AWS secret key", (b"aws_secret", b"AWS_SECRET"),
     re.compile(rb"(?i)aws_secret_access_key[\"']?\s{0,4}[=:]\s{0,4}[\"']?"
                rb"(?![A-Za-z0-9/+]{30}EXAMPLEKEY)[A-Za-z0-9/+]{40}\b")),
    ("a GitHub token", (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
     re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,90})\b")),
    ("a GitLab token", (b"glpat-",), re.compile(rb"\bglpat-[A-Za-z0-9_-]{20}")),
    ("a Slack token", (b"xox",), re.compile(rb"\bxox[abprs]-[0-9]{8,14}-[A-Za-z0-9-]{10,80}")),
    ("a Google API key", (b"AIza",), re.compile(rb"\bAIza[0-9A-Za-z_-]{35}\b")),
    ("a Stripe key", (b"k_live_",), re.compile(rb"\b[sr]k_live_[0-9A-Za-z]{24,99}\b")),
    ("an npm token", (b"npm_", b"_authToken"),
     re.compile(rb"\bnpm_[A-Za-z0-9]{36}\b|_authToken=(?!\$)[^\s]{20,200}")),
    ("a PyPI token", (b"pypi-AgEI",), re.compile(rb"\bpypi-AgEI[A-Za-z0-9_-]{50,300}")),
    ("a registry's password", (b'"auth"',),
     re.compile(rb'"auth"\s{0,4}:\s{0,4}"[A-Za-z0-9+/]{12,400}={0,2}"')),
)  # fmt: skip
"""Name, literals one of which it has, and pattern. The literals make the search fast."""
_HEADER = re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----")
_URL_PASSWORD = re.compile(rb"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,64}:(?!\$)[^\s/@]{3,128}@")


def forms(data: bytes) -> Iterator[str]:
    """Yield what secrets a text has by their form."""
    for name, literals, pattern in _FORMS:
        if any(literal in data for literal in literals) and pattern.search(data):
            yield name


def is_secret(assignment: str) -> bool:
    """Return whether ``NAME=VALUE`` has the name of a secret and a value of its own."""
    name, _, value = assignment.partition("=")
    return bool(_NAME.search(name)) and value.strip("\"'")[:1] not in ("", "$", "/")


def of_variables(variables: Iterable[str]) -> list[str]:
    """Return the names of variables that have a secret, with its form if that shows it."""
    found = []
    for variable in variables:
        name, _, value = variable.partition("=")
        data = value.encode("utf-8", "surrogateescape")
        kind = next(forms(data), "a password in a URL" if _URL_PASSWORD.search(data) else "")
        if kind:
            found.append(f"{name} ({kind})")
        elif is_secret(variable):
            found.append(name)
    return found


def of_steps(steps: Iterable[str]) -> list[str]:
    """Return what secrets the steps of a history have: names of variables, or forms."""
    found = []
    for step in steps:
        found += [match[1] for match in _ASSIGNMENT.finditer(step) if is_secret(match[0])]
        found += forms(step.encode("utf-8", "surrogateescape"))
        if _HEADER.search(step):  # the key follows in another form
            found.append("a private key")
    return list(dict.fromkeys(found))
