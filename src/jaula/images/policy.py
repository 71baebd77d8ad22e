"""The image policy: which images may be pulled, loaded and run. The default permits all of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from jaula.errors import InvalidRequest, NotAuthorized
from jaula.images.registry.admission import Admission
from jaula.spec import toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jaula.images.reference import Reference
    from jaula.images.registry.cancellation import Cancellation
    from jaula.images.registry.manifest_download import Document
    from jaula.images.registry.repository import Repository
    from jaula.images.store.image_catalog import Image

TABLE = "images"
"""The table of the rules in the policy file."""


class ImageRefused(NotAuthorized):
    """The policy refuses to pull or to run this image."""


class Signer(Protocol):
    """Who has signed an image, and the name that the signature states."""

    @property
    def key(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def name(self) -> str: ...


class ImagePolicy(Admission, Protocol):
    """The image policy of one engine. Methods may be called from several threads.

    All checks raise :class:`ImageRefused`.
    """

    def load_file(self, path: str, *, required: bool) -> None:
        """Use another policy file from now on; '' for none.

        :raises InvalidRequest: if it cannot be read. The former file stays in force then.
        """

    def check_load(self, name: str, id: str) -> None:
        """Check an image that an archive would give this name."""

    def check_run(self, image: Image, asked: str) -> Signer | None:
        """Check an image that a new container would have; return the signer that is required."""

    def check_start(self, id: str, asked: str) -> None:
        """Check the image of a container that starts."""


class OpenPolicy:
    """A policy without rules: it permits every image, and refuses a file with rules."""

    def __init__(self, path: str, *, required: bool) -> None:
        self._path, self._stamp = "", (0, 0)
        self.load_file(path, required=required)

    def load_file(self, path: str, *, required: bool) -> None:
        """Check that a policy file has no rules about images.

        :raises InvalidRequest: when it has, or cannot be read.
        """
        self._path, self._stamp = path, _stamp(path)
        if not path:
            return
        try:
            with open(path, "rb") as file:
                document = toml.loads(file.read(toml.MAX_SIZE + 1))
        except FileNotFoundError:
            return  # the policy of callers reports it, if it is required
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"the policy {path} cannot be read: {error}") from None
        if TABLE in document:
            raise InvalidRequest(
                f"the policy {path} has rules about images, and the feature trust is not installed",
                hint=f"remove the table [{TABLE}], or install all of jaula",
            )

    def _check(self) -> None:
        """Check that the file has no rules now, if it has changed.

        :raises ImageRefused: when it has, or cannot be read.
        """
        if not self._path or _stamp(self._path) == self._stamp:
            return
        former = self._stamp
        try:
            self.load_file(self._path, required=False)
        except InvalidRequest as error:
            self._stamp = former
            raise ImageRefused(error.message, hint=error.hint) from None

    def check_name(self, reference: Reference) -> None:
        """Permit every name."""
        self._check()

    def requires_signature(self, reference: Reference) -> bool:
        """Return that no image needs a signature."""
        return False

    def check_pull(
        self,
        sources: Iterable[Repository],
        reference: Reference,
        named: Document,
        manifest: Document,
        cancel: Cancellation,
    ) -> Callable[[], None]:
        """Permit every pull."""
        self._check()
        return lambda: None

    def check_load(self, name: str, id: str) -> None:
        """Permit every archive."""
        self._check()

    def check_run(self, image: Image, asked: str) -> Signer | None:
        """Permit every image."""
        self._check()
        return None

    def check_start(self, id: str, asked: str) -> None:
        """Permit every start."""
        self._check()


def _stamp(path: str) -> tuple[int, int]:
    """Return what changes with a file: its inode and the time of its last change."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_ino, status.st_ctime_ns
