"""One request that changes something, and the note of what became of it.

Leaving a deed writes one line of the audit log: done, refused, failed or cut off.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from jaula.engine.authz.rule import AccessLevel, ContainerAccess
from jaula.errors import JaulaError
from jaula.spec.api_params import Peer, Remote
from jaula.state.audit_log import AuditEntry

if TYPE_CHECKING:
    from types import TracebackType

    from jaula.engine.authz.session import Session
    from jaula.engine.model.container import Container
    from jaula.engine.relaxations import Privilege

DONE, FAILED, CUT_OFF = 200, 500, 499  # statuses; the last is what nginx calls a client that left


class AuditedAction:
    """One request that changes something; its end is noted."""

    def __init__(
        self,
        visitor: Session,
        action: str,
        about: str,
        argv: tuple[str, ...],
        image: str,
        lessens: bool,
    ) -> None:
        self._visitor = visitor
        self._action = action
        self._argv = argv
        self._image = image
        self._lessens = lessens
        self._asks: tuple[Privilege, ...] = ()
        self._failure = ""
        self._name = ""
        self.object = about

    def __enter__(self) -> AuditedAction:
        if not self._lessens:
            self._visitor.journal.check()
        return self

    # What is asked of the caller's rule.

    def judged(self, asks: tuple[Privilege, ...]) -> tuple[Privilege, ...]:
        """Note the relaxations, and raise for one that is not granted."""
        self._asks = asks
        self._visitor.judge(asks)
        return asks

    def container(self, ref: str) -> Container:
        """The container that this is about, of the caller or within its reach."""
        container = self._visitor.control(ref)
        self.object, self._name = container.id, container.name
        return container

    def run(self) -> None:
        """For what needs no more than leave to run containers."""
        self._visitor.run()

    def everyone(self, what: str) -> None:
        """For what touches every owner's containers."""
        self._visitor.run()
        rule = self._visitor.rule
        if rule.access is not AccessLevel.ALL and rule.others is not ContainerAccess.CONTROL:
            raise self._visitor.refusal(what, "name your own containers one by one")

    def images(self) -> None:
        """For changes of images."""
        self._visitor.run()
        if self._visitor.rule.access is not AccessLevel.ALL and not self._visitor.rule.images:
            raise self._visitor.refusal("change images")

    def volumes(self) -> None:
        """For changes of volumes."""
        self._visitor.run()
        if self._visitor.rule.access is not AccessLevel.ALL and not self._visitor.rule.volumes:
            raise self._visitor.refusal("change volumes")

    # What becomes of it.

    def told(self, document: dict[str, Any]) -> dict[str, Any]:
        """Pass on a line of progress; an error in it is the deed's."""
        if "error" in document:
            self._failure = str(document["error"])
        return document

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        status, text = DONE, ""
        if error is not None:
            status, text = _outcome(error)
        elif self._failure:
            status, text = FAILED, self._failure
        visitor, peer = self._visitor, self._visitor.peer
        visitor.journal.append(
            AuditEntry(
                uid=visitor.caller.uid,
                pid=visitor.caller.pid,
                login_uid=peer.login_uid if isinstance(peer, Peer) else None,
                command=peer.command if isinstance(peer, Peer) else "",
                certificate=visitor.caller.certificate,
                fingerprint=visitor.caller.fingerprint,
                address=peer.address if isinstance(peer, Remote) else "",
                action=self._action,
                object=self.object,
                name=self._name,
                image=self._image,
                asks=tuple(str(ask) for ask in self._asks),
                argv=self._argv,
                status=status,
                error=text,
            )
        )


def _outcome(error: BaseException) -> tuple[int, str]:
    if isinstance(error, JaulaError):
        return error.status, error.message
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return CUT_OFF, "the client went away"
    return FAILED, type(error).__name__
