"""Copies of the audit logs' heads outside the engine: in syslog, the journal, or on another host.

Root of the host can rewrite the audit log with its head. A head that was sent elsewhere shows it:
``jaula system audit-log --verify --head LINE:SHA256`` compares a line with it.
"""

from __future__ import annotations

import logging
from typing import Final

from jaula.errors import InvalidRequest
from jaula.logs import open_writer, validate
from jaula.logs.log_opt import ADDRESS
from jaula.state.audit_log import Head

JOURNALD, SYSLOG = "journald", "syslog"
TAG: Final = "jaula-audit"

log = logging.getLogger("jaula.engine")


def log_driver(target: str) -> tuple[str, dict[str, str]]:
    """Return the log driver and the options for ``journald``, ``syslog`` or a syslog address.

    :raises InvalidRequest: when the target is none of these.
    """
    if target == JOURNALD:
        return JOURNALD, {"tag": TAG}
    address = {} if target == SYSLOG else {ADDRESS: target}
    options = {"tag": TAG, "syslog-facility": "authpriv"} | address
    try:
        validate(SYSLOG, options)
    except InvalidRequest as error:
        raise InvalidRequest(
            f"invalid audit-head {target[:80]!r}: {error.message}",
            hint="journald, syslog, or an address such as tcp+tls://loghost:6514",
        ) from None
    return SYSLOG, options


def message(identity: str, heads: tuple[Head, Head]) -> str:
    """Return the line that is sent: the engine's id, and line and hash of both logs."""
    done, refused = (f"{head.n}:{head.hash}" for head in heads)
    return f"engine {identity[:12]} audit head {done} refused:{refused}"


class HeadLog:
    """Sends heads to one target. Methods block, up to a few seconds."""

    def __init__(self, target: str, identity: str) -> None:
        """Check the target.

        :raises InvalidRequest: when it is not valid.
        """
        self._driver, self._options = log_driver(target)
        self._target = target
        self._identity = identity
        self._sent: tuple[Head, Head] | None = None

    def send(self, heads: tuple[Head, Head]) -> None:
        """Send the heads if they have changed. A failure is logged; the next call tries again."""
        if heads == self._sent:
            return
        try:
            writer = open_writer(self._driver, self._options, "")
            writer.write("stdout", f"{message(self._identity, heads)}\n".encode())
            writer.close()
            failure = writer.error if writer.dropped else ""
        except (OSError, InvalidRequest) as error:
            failure = str(error)
        if failure:
            log.error("the head of the audit log cannot be sent to %s: %s", self._target, failure)
        else:
            self._sent = heads
