"""Secrets are recognised by name and form; examples and references are not."""

from __future__ import annotations

import base64
import os
import time

import pytest

from jaula.features.audit.image import secrets

BODY = base64.b64encode(bytes(range(48)))


def token(prefix: str, length: int) -> bytes:
    """Return a token that no service has given out; joined here so that no scanner finds it."""
    return (prefix + "Ab1" * length)[: len(prefix) + length].encode()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"-----BEGIN RSA PRIVATE KEY-----\n" + BODY, "a private key"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + BODY, "a private key"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n" + BODY, "a private key"),
        (b'"key": "-----BEGIN PRIVATE KEY-----\\n' + BODY, "a private key"),
        (b"x=" + b"AKIA" + b"Z" * 16, "an AWS access key"),
        (b"aws_secret_access_key = " + b"a/+9" * 10, "an AWS secret key"),
        (token("ghp_", 36), "a GitHub token"),
        (token("glpat-", 20), "a GitLab token"),
        (token("sk_live_", 24), "a Stripe key"),
        (b"//registry.npmjs.org/:_authToken=" + b"0123456789abcdef0123", "an npm token"),
        (b'{"auths": {"r": {"auth": "' + BODY + b'"}}}', "a registry's password"),
    ],
)
def test_forms(data: bytes, kind: str) -> None:
    assert list(secrets.forms(b"text\n" + data + b"\nmore")) == [kind]


@pytest.mark.parametrize(
    "data",
    [
        b"-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        b"if line == '-----BEGIN RSA PRIVATE KEY-----':",
        b"-----BEGIN PUBLIC KEY-----\n" + BODY,
        b"AKIAIOSFODNN7EXAMPLE",
        b"aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        b"_authToken=${NPM_TOKEN}",
        b'"auth": "none"',
    ],
)
def test_examples_and_references_are_no_secrets(data: bytes) -> None:
    assert list(secrets.forms(data)) == []


def test_variables_are_named_without_their_values() -> None:
    variables = ["PATH=/bin", "DB_PASSWORD=hunter2", "URL=postgres://u:pass@db/x",
                 "K=" + token("ghp_", 36).decode(), "TOKEN=", "SECRET=/run/secrets/x",
                 "API_KEY=$KEY"]  # fmt: skip
    found = secrets.of_variables(variables)
    assert found == ["DB_PASSWORD", "URL (a password in a URL)", "K (a GitHub token)"]


def test_steps_have_assignments_and_forms() -> None:
    steps = ["RUN API_TOKEN=abc make", "RUN curl -H " + token("ghp_", 36).decode(), "RUN make"]
    assert secrets.of_steps(steps) == ["API_TOKEN", "a GitHub token"]


def test_hostile_text_costs_little() -> None:
    texts = (
        b"-----BEGIN " + b"A" * (1 << 20),
        b"-----BEGIN PRIVATE KEY-----" + b"\n" * (1 << 20),
        (b"-----BEGIN PRIVATE KEY-----\\n" * 40_000)[: 1 << 20],
        b"aws_secret_access_key" * 50_000,
        (b'"auth": "' + b"A" * 399) * 2000,
        b"xoxb-" + b"1" * (1 << 20),
        os.urandom(1 << 20),
    )
    before = time.process_time()
    for text in texts:
        list(secrets.forms(text))
        secrets.of_variables([text.decode("latin1")])
    assert time.process_time() - before < 10
