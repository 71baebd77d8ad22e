"""Services of a connection are created at their first use."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

from jaula.api.backend import Backend
from jaula.engine.authz.gateway import EngineApi

GROUPS = sorted(name for name, member in vars(Backend).items() if isinstance(member, property))


def view() -> EngineApi:
    inner: Any = SimpleNamespace(**dict.fromkeys(GROUPS))
    session: Any = SimpleNamespace()
    gateway: Any = SimpleNamespace(web_logins=None)
    return EngineApi(inner, session, gateway)


def test_a_connection_starts_without_any_service() -> None:
    made = view()
    assert not set(vars(made)) & set(GROUPS)
    assert made.containers is made.containers
    assert set(vars(made)) & set(GROUPS) == {"containers"}


def test_every_service_of_the_backend_exists() -> None:
    made = view()
    found = {name: type(getattr(made, name)).__name__ for name in GROUPS}
    assert set(vars(made)) >= set(GROUPS)
    assert len(set(found.values())) == len(GROUPS)


def test_the_module_of_a_service_is_loaded_at_its_first_use() -> None:
    program = (
        "import sys, jaula.engine.authz.gateway;"
        "print([name for name in sys.modules if name.startswith('jaula.engine.authz.api.')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done
