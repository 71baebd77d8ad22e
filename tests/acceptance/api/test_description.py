"""The API against its own description: requests made from it by schemathesis, valid and not.

Whatever comes, the engine answers in time with a status that means something and JSON that says
what was wrong; it never answers 500, but where a registry out of reach is Docker's 500.
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

BASE = "http://engine/v1.45"
SECONDS = 10.0  # for an answer; one that is a stream may go on
REGISTRY = ("/images/create", "/images/search", "/distribution", "/images/{name}/push", "/build")
OF_A_REGISTRY = (*REGISTRY, "/jaula/manifests", "/jaula/signatures", "/auth")

description = json.loads((PROJECT / "docs" / "openapi.json").read_text())
schemathesis.serializer.alias("application/x-tar", "application/octet-stream")
schema = schemathesis.openapi.from_dict(description)


@pytest.fixture(scope="module")
def own(worker_index: int) -> Iterator[PrivateEngine]:
    """An engine that may be told anything; registries are a closed port away."""
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
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_any_request_is_answered(case: Any, own: PrivateEngine, session: requests.Session) -> None:
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


def test_the_description_is_what_the_routes_are() -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, str(PROJECT / "scripts" / "openapi"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
