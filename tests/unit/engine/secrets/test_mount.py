"""The references of a container to secrets and configs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from jaula.caller_quota import OwnedSizes
from jaula.engine.containers.resolved_request import resolve
from jaula.errors import InvalidRequest
from jaula.features.secrets.secret_mounts import resolve_references
from jaula.spec.api_documents import ContainerCreate, HostConfig, SecretReference


@pytest.mark.parametrize(
    ("secrets", "configs", "refused"),
    [(1024, 0, ""), (1000, 24, ""), (1025, 0, "1025"), (1, 1024, "1025")],
)
def test_a_container_has_a_bounded_number_of_references(
    secrets: int, configs: int, refused: str
) -> None:
    looked_up = []

    def find(kind: str, name: str) -> Any:
        looked_up.append(name)
        return SimpleNamespace(id="1", name=name)

    def references(number: int, kind: str) -> tuple[SecretReference, ...]:
        return tuple(SecretReference(source="a", target=f"/{kind}/{n}") for n in range(number))

    services: Any = SimpleNamespace(
        service=lambda make: SimpleNamespace(find=find, sizes=OwnedSizes())
    )
    host = HostConfig(secrets=references(secrets, "s"), configs=references(configs, "c"))
    body = ContainerCreate(image="a", cmd=("a",), host_config=host)
    resolved = resolve(body)
    if not refused:
        whole = resolve_references(services, body, resolved)
        assert len(whole.host_config.secrets + whole.host_config.configs) == 1024
    else:
        with pytest.raises(InvalidRequest, match=f"{refused} secrets and configs; at most 1024"):
            resolve_references(services, body, resolved)
        assert looked_up == []


@pytest.mark.parametrize(("number", "refused"), [(32, False), (33, True)])
def test_the_files_of_a_container_have_a_bounded_size(number: int, refused: bool) -> None:
    """One secret may be referred to many times, and each file takes memory of the host."""
    sizes = OwnedSizes()
    sizes.set("1", "0", 512 * 1024)
    store = SimpleNamespace(find=lambda *_: SimpleNamespace(id="1", name="a"), sizes=sizes)
    services: Any = SimpleNamespace(service=lambda make: store)
    references = tuple(SecretReference(source="a", target=f"/{n}") for n in range(number))
    body = ContainerCreate(image="a", cmd=("a",), host_config=HostConfig(secrets=references))
    if not refused:
        whole = resolve_references(services, body, resolve(body))
        assert len(whole.host_config.secrets) == number
    else:
        with pytest.raises(InvalidRequest, match="of 17301504 bytes; a container may have"):
            resolve_references(services, body, resolve(body))
