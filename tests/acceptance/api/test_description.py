"""The API compared with its OpenAPI description: valid and invalid requests of schemathesis.

The engine answers every request in time, with a meaningful status and a JSON error. It never
answers 500, except for an unreachable registry, where Docker answers 500.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from docker.transport import UnixHTTPAdapter

from harness import leaks
from harness.engine import PROJECT, PrivateEngine

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.xdist_group("description"),
]

BASE = "http://engine/v1.55"
SECONDS = 10.0  # for a response; a stream may continue
REGISTRY = ("/images/create", "/images/search", "/distribution", "/images/{name}/push", "/build")
OF_A_REGISTRY = (*REGISTRY, "/jaula/manifests", "/jaula/signatures", "/auth")

description = json.loads((PROJECT / "docs" / "openapi.json").read_text())
schemathesis.serializer.alias("application/x-tar", "application/octet-stream")
schema = schemathesis.openapi.from_dict(description)


@pytest.fixture(scope="module")
def own(worker_index: int) -> Iterator[PrivateEngine]:
    """Return an engine that may receive any request; its registries are a closed port."""
    private = PrivateEngine(
        (worker_index + 57) % 250 + 1,
        extra_flags=("--registry-mirror", "http://127.0.0.1:9"),
    )
    with leaks.nothing_left(private):
        yield private


@pytest.fixture(scope="module")
def session(own: PrivateEngine) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.mount("http://engine/", UnixHTTPAdapter(f"http+unix://{own.socket}"))
        yield made


@schema.parametrize()
@hypothesis.settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_every_request_gets_a_valid_response(
    case: Any, own: PrivateEngine, session: requests.Session
) -> None:
    arguments = case.as_transport_kwargs(base_url=BASE)
    try:
        with session.request(**arguments, stream=True, timeout=SECONDS) as answer:
            body = b"" if answer.status_code < 400 else answer.raw.read(1 << 20)
    except requests.ConnectionError as error:
        raise AssertionError(f"{case.method} {case.path}: {error}\n{own.log_tail()}") from error
    assert answer.status_code < 600
    if answer.status_code >= 400 and case.method != "HEAD":
        message = json.loads(body)["message"]
        assert message, answer.status_code
        assert "Traceback" not in message
    if answer.status_code == 500:
        assert case.path.startswith(OF_A_REGISTRY), body
    assert own.process is not None
    assert own.process.poll() is None, own.log_tail()


def test_the_description_matches_the_routes() -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, str(PROJECT / "scripts" / "openapi"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
