"""The right that each use case needs, as data.

A class of the authorised engine has a row for each use case that a client may call::

    pause = use_case(Containers.pause, Right.CONTROL, "container pause", revokes=True)

The row is a method of the class: it checks the right, writes the audit log, and calls the use case.
A use case that has neither a row nor a method of its own cannot be called by a client.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from jaula.engine.authz.caller_session import AuditedAction, Session

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Right(Enum):
    """What a caller needs for a use case; of a container, if it is the first argument."""

    NONE = "no right"
    READ = "list and inspect"
    READ_CONTAINER = "read the container"
    CONTROL = "control the container"
    ENTER = "control the container, and act as it"
    START = "control the container, and ask for all that it has"
    REMOVE = "remove the container"
    RUN = "run containers"
    IMAGES = "change images"
    VOLUMES = "change volumes"

    def check(self, session: Session, subject: str) -> None:
        """Check that a caller has this right.

        :raises NotAuthorized: when it has not.
        """
        match self:
            case Right.NONE:
                return
            case Right.READ:
                session.require_read()
            case Right.READ_CONTAINER:
                session.require_container_read(subject)
            case Right.CONTROL:
                session.require_control(subject)
            case Right.RUN:
                session.require_run()
            case Right.IMAGES:
                session.require_images()
            case Right.VOLUMES:
                session.require_volumes()
            case _:
                raise TypeError(f"{self} is a right to an action")

    def check_action(self, session: Session, action: AuditedAction, subject: str) -> None:
        """Check that the caller of an action has this right.

        :raises NotAuthorized: when it has not.
        """
        match self:
            case Right.CONTROL:
                action.require_control(subject)
            case Right.ENTER:
                action.require_enter(subject)
            case Right.START:
                action.authorize_start(subject)
            case Right.REMOVE:
                action.require_remove(subject)
            case _:
                self.check(session, subject)


class AuthorizedClass(Protocol):
    """A class with rows: ``_service`` has the use cases, ``_session`` is the caller."""

    _service: Any
    _session: Session


class UseCase(Generic[Parameters, Result]):
    """A row: a use case with the right that it needs; see :func:`use_case`."""

    def __init__(
        self,
        function: Callable[Concatenate[Any, Parameters], Result],
        right: Right,
        action: str,
        *,
        revokes: bool,
    ) -> None:
        self.function = function
        self.right = right
        self.action = action
        self.revokes = revokes

    @overload
    def __get__(self, instance: None, owner: type) -> UseCase[Parameters, Result]: ...
    @overload
    def __get__(self, instance: AuthorizedClass, owner: type) -> Callable[Parameters, Result]: ...
    def __get__(self, instance: AuthorizedClass | None, owner: type) -> Any:
        if instance is None:
            return self
        function = getattr(instance._service, self.function.__name__)
        if not self.action:
            return self._checked(function, instance._session)
        if inspect.iscoroutinefunction(self.function):
            return self._audited_coroutine(function, instance._session)
        return self._audited(function, instance._session)

    def _checked(self, function: Callable[..., Any], session: Session) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.right.check(session, args[0] if args else "")
            return function(*args, **options)

        return call

    def _audited(self, function: Callable[..., Any], session: Session) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            subject = args[0] if args else ""
            with session.begin(self.action, subject, revokes=self.revokes) as action:
                self.right.check_action(session, action, subject)
                return function(*args, **options)

        return call

    def _audited_coroutine(
        self, function: Callable[..., Any], session: Session
    ) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:
            subject = args[0] if args else ""
            with session.begin(self.action, subject, revokes=self.revokes) as action:
                self.right.check_action(session, action, subject)
                return await function(*args, **options)

        return call


def use_case(
    function: Callable[Concatenate[Any, Parameters], Result],
    right: Right,
    action: str = "",
    *,
    revokes: bool = False,
) -> UseCase[Parameters, Result]:
    """Return the row of a use case.

    ``action`` is its name in the audit log, which has the first argument as the object; '': it
    changes nothing, and is not logged. With ``revokes`` it only stops or removes things, and is
    possible even if the log cannot be written.
    """
    return UseCase(function, right, action, revokes=revokes)


def rows(api: type) -> dict[str, UseCase[..., Any]]:
    """Return the rows of a class of the authorised engine, by name."""
    return {name: row for name, row in vars(api).items() if isinstance(row, UseCase)}
