"""Fixtures of the tests with a kubelet: a node, and pods that are removed after each test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from conftest import load_image
from harness import kubelet
from harness.engine import PrivateEngine, SliceEngine
from harness.kubelet import Kubelet
from integration.network.conftest import new_namespace


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "kubelet":
            item.add_marker(pytest.mark.kubelet)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def shared_node(worker_index: int) -> Iterator[Kubelet]:
    program = kubelet.program()
    assert program is not None, "KUBELET names no kubelet"
    netns = new_namespace()
    try:
        kind = SliceEngine if kubelet.SYSTEMD else PrivateEngine
        with kubelet.node(kind((worker_index + 61) % 250 + 1), netns, program) as made:
            load_image(made.engine, "busybox")
            yield made
    finally:
        os.close(netns)


@pytest.fixture
def node(shared_node: Kubelet) -> Iterator[Kubelet]:
    yield shared_node
    if shared_node.engine.process is None:  # a test failed in between
        shared_node.start_engine()
    if shared_node.process is None:
        shared_node.start()
    for path in shared_node.manifests.glob("*.json"):
        shared_node.delete(path.stem)
