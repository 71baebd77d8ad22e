"""Services of a connection are created at their first use, and each checks a right."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import jaula
from jaula.engine.authz.gateway import EngineApi
from jaula.engine.authz.use_case import Right, UseCase, rows

GROUPS = sorted(name for name, each in vars(EngineApi).items() if isinstance(each, cached_property))
SOURCE = Path(jaula.__file__).parent
MODULES = sorted((*SOURCE.glob("engine/authz/api/*.py"), *SOURCE.glob("features/*/authz.py")))
WITHOUT_RIGHT = {"BuildsApi.announce_session"}
"""Methods that neither check a right nor call one that does: they wake those that wait."""


def view() -> EngineApi:
    inner: Any = SimpleNamespace(**dict.fromkeys(GROUPS))
    session: Any = SimpleNamespace()
    gateway: Any = SimpleNamespace(web_logins=None)
    return EngineApi(inner, session, gateway)


def authorized_classes() -> list[type]:
    found = []
    for path in MODULES:
        name = ".".join(("jaula", *path.relative_to(SOURCE).with_suffix("").parts))
        module = import_module(name)
        for each in vars(module).values():
            is_own = inspect.isclass(each) and each.__module__ == name
            if is_own and each.__name__.endswith("Api"):
                found.append(each)
    return found


CLASSES = authorized_classes()
ROWS = [(api, name, row) for api in CLASSES for name, row in rows(api).items()]
NAMES = [f"{api.__name__}.{name}" for api, name, _ in ROWS]


def test_a_connection_starts_without_any_service() -> None:
    made = view()
    assert not set(vars(made)) & set(GROUPS)
    assert made.containers is made.containers
    assert set(vars(made)) & set(GROUPS) == {"containers"}


def test_every_service_exists() -> None:
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


@pytest.mark.parametrize(("name", "row"), [each[1:] for each in ROWS], ids=NAMES)
def test_a_row_is_of_a_use_case_with_its_name(name: str, row: UseCase[..., Any]) -> None:
    assert row.function.__name__ == name
    of_action = row.right in (Right.ENTER, Right.START, Right.REMOVE)
    assert row.action or not of_action
    if row.revokes:
        assert row.right in (Right.CONTROL, Right.REMOVE)


@pytest.mark.parametrize("api", CLASSES, ids=[each.__name__ for each in CLASSES])
def test_each_method_without_a_row_checks_a_right(api: type) -> None:
    """By name: it uses the caller's session, or calls a method that does."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(api)))
    methods = {
        node.name: {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    checking = {name for name, used in methods.items() if "_session" in used}
    while more := {n for n, used in methods.items() if used & checking} - checking:
        checking |= more
    public = {name for name in methods if not name.startswith("_")}
    missing = {f"{api.__name__}.{name}" for name in public - checking}
    assert missing <= WITHOUT_RIGHT


class Session:
    """Records the checks, and refuses those of ``refused``."""

    def __init__(self, refused: str = "") -> None:
        self.calls: list[object] = []
        self.refused = refused

    def __getattr__(self, name: str) -> Any:
        def check(*args: object, **options: object) -> object:
            self.calls.append((name, *args))
            if name == self.refused:
                raise PermissionError(name)
            return self

        return check

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append("logged")


@pytest.mark.parametrize(("api", "name", "row"), ROWS, ids=NAMES)
def test_a_row_checks_before_it_calls(api: type, name: str, row: UseCase[..., Any]) -> None:
    async def coroutine(*args: object) -> object:
        session.calls.append("called")
        return args

    def function(*args: object) -> object:
        session.calls.append("called")
        return args

    is_async = inspect.iscoroutinefunction(row.function)
    made: Any = object.__new__(api)
    made._session = session = Session()
    made._service = SimpleNamespace(**{name: coroutine if is_async else function})

    def call() -> object:
        result = getattr(made, name)("one", 2)
        if not is_async:
            return result
        try:
            result.send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("it waits")

    assert call() == ("one", 2)
    checks = [each for each in session.calls if each not in ("called", "logged")]
    begun = [("begin", row.action, "one")] if row.action else []
    assert checks[: len(begun)] == begun
    assert len(checks) == len(begun) + (row.right is not Right.NONE)
    assert session.calls.index("called") == len(checks)
    if row.right is Right.NONE:
        return
    session.refused, session.calls = checks[-1][0], []  # type: ignore[index]
    with pytest.raises(PermissionError):
        call()
    assert "called" not in session.calls
    assert ("logged" in session.calls) == bool(row.action)
