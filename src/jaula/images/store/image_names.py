"""Who may move and remove the names of images. Pure.

A name belongs to the caller who set it: a tag, or a name with a digest. Only its owner and the
callers who control the owner's objects may let it refer to another image, or remove it. Without
this, a caller could replace the image that another one runs next by its name.

A name of an engine that recorded none belongs to the owner of the image that it referred to then.
A name without any owner is for administrators only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from jaula.errors import JaulaError, NotAuthorized

ROOT = "0"
"""The owner of what root has set."""

_ADVICE = "refer to the image by its digest, or use a name of your own; that owner may"


def _denial(action: str, advice: str) -> JaulaError:
    return NotAuthorized(f"the caller may not {action}", hint=advice)


class NameRights(NamedTuple):
    """One caller as the owner of names.

    ``controls`` returns whether the caller may change the objects of another owner. ``administers``
    is whether it may change everything: a name that it sets is its own then, even if another caller
    had set it to the same image. ``denial`` returns the error for an action and an advice.
    """

    owner: str
    controls: Callable[[str], bool] = lambda owner: False
    administers: bool = False
    denial: Callable[[str, str], JaulaError] = _denial

    def may_change(self, owner: str) -> bool:
        """Return whether the caller may change what belongs to ``owner``, empty for no owner."""
        return bool(owner and owner == self.owner) or self.administers or self.controls(owner)

    def check(self, verb: str, name: str, owner: str, way_out: str = "") -> None:
        """Check that the caller may change a name or an image.

        :raises NotAuthorized: when it may not.
        """
        if not self.may_change(owner):
            raise self.denial(f"{verb} {name} of {owner_name(owner)}", way_out or _ADVICE)


def owner_name(owner: str) -> str:
    """Return an owner for people."""
    if not owner:
        return "an administrator"
    return f"uid {owner}" if owner.isdigit() else owner


def owners_after(
    names: Iterable[str],
    target: str,
    targets: Mapping[str, str],
    owners: Mapping[str, str],
    has_image: Callable[[str], bool],
    rights: NameRights | None,
    way_out: str = "",
) -> dict[str, str]:
    """Return the names that refer to ``target`` from now on, each with its owner then.

    ``targets`` and ``owners`` are those of all names so far. ``has_image`` returns whether a target
    has the same image in another form: a name of another owner stays there, and is not returned.
    The engine itself has no ``rights``: its new names have no owner.

    :raises NotAuthorized: when a name of another owner would refer to another image.
    """
    result = {}
    for name in names:
        former, owner = targets.get(name), owners.get(name, "")
        if rights is None:
            result[name] = owner
        elif former is None:
            result[name] = rights.owner
        elif former == target:
            result[name] = rights.owner if rights.administers and owner != ROOT else owner
        elif rights.may_change(owner):
            result[name] = rights.owner
        elif not has_image(former):
            rights.check("move the name", name, owner, way_out)
    return result
