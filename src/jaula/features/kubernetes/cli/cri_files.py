"""Shared by the commands of the group ``cri``: configuration files of the host."""

from __future__ import annotations

import os

from jaula.cli.cli_errors import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def refuse_existing(paths: Iterable[str], *, force: bool) -> None:
    """Check that none of the files exists, or that ``force`` is set.

    :raises CliError: when one exists.
    """
    for path in paths:
        if os.path.lexists(path) and not force:
            raise CliError(f"jaula: {path} exists already (--force replaces it)")


def write_new(path: str, content: bytes, *, force: bool) -> None:
    """Write a file of mode 0644 by a rename and print its path; make its directory.

    :raises CliError: when it exists and ``force`` is not set, or cannot be written.
    """
    refuse_existing((path,), force=force)
    temporary = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o644), "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        raise CliError(f"jaula: cannot write {path}: {error.strerror}") from None
    print(path)
