"""The rules about images as an operator writes them: the table ``images`` of ``policy.toml``.

    [images]
    "*" = "reject"
    "docker.io/library" = "accept"
    "registry.example.com/team" = { signed-by = ["keys/team.pub"] }

Keys are PEM files, named from the directory of the policy on, or the text of one. The file and the
keys belong to the engine's user, and nobody else can write them: whoever can, decides what runs.
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from jaula import trusted_file
from jaula.errors import InvalidRequest
from jaula.images.reference import parse as parse_reference
from jaula.images.trust import keys
from jaula.images.trust.rules import TrustRule, TrustRules, Verdict, scope

if TYPE_CHECKING:
    from collections.abc import Callable

SECTION: Final = "images"
MAX_SIZE: Final = 1 << 20  # bytes
_PEM: Final = "-----BEGIN "
_MEMBERS: Final = ("signed-by", "signed-as")


class RulesFile:
    """The policy file, with the state of each file it was read from.

    ``stamps`` are stat values of the policy and of its key files, so that a change of a key is
    noticed too.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.stamps: dict[str, tuple[int, ...]] = {}

    def read(self, *, required: bool = True) -> TrustRules:
        """Return the rules, none if the file is absent and not ``required``.

        :raises InvalidRequest: if the file cannot be read or is not valid.
        """
        self.stamps = {self.path: stamp(self.path)}
        data = trusted_file.read(self.path, MAX_SIZE, "policy", required=required)
        if data is None:
            return TrustRules()
        try:
            rules = parse(data, self._key)
        except InvalidRequest as error:
            raise InvalidRequest(f"policy {self.path}: {error.message}", hint=error.hint) from None
        digest = sha256(data).hexdigest()
        return TrustRules(rules, f"{self.path} sha256:{digest}" if rules else "")

    @property
    def changed(self) -> bool:
        """Return whether a file has changed since it was read. Costs a microsecond per file."""
        return any(stamp(path) != former for path, former in self.stamps.items())

    def _key(self, name: str) -> bytes:
        path = os.path.join(os.path.dirname(os.path.abspath(self.path)), name)
        self.stamps[path] = stamp(path)
        data = trusted_file.read(path, keys.PEM_LIMIT, "key", required=True)
        assert data is not None, "a required file is read or refused"
        return data


def stamp(path: str) -> tuple[int, ...]:
    """Return stat values that change when a file is written or replaced, empty if it is absent."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (
        *(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns),
        *(status.st_uid, status.st_mode),
    )


def parse(data: bytes, key: Callable[[str], bytes]) -> tuple[TrustRule, ...]:
    """Parse the table ``images``. ``key`` returns the content of a key file.

    :raises InvalidRequest: if the table is not valid.
    """
    import tomllib

    try:
        document = tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"it is not a TOML document: {error}") from None
    table = document.get(SECTION, {})
    if not isinstance(table, dict):
        raise InvalidRequest(f"[{SECTION}] is not a table")
    rules: dict[tuple[str, str, str], TrustRule] = {}
    for name, value in table.items():
        rule = _rule(name, value, key)
        target = rule.scope.domain, rule.scope.path, rule.scope.tag
        if target in rules:
            raise InvalidRequest(
                f'[{SECTION}] "{name}": "{rules[target].scope.text}" has the same scope'
            )
        rules[target] = rule
    return tuple(rules.values())


def _rule(name: str, value: Any, key: Callable[[str], bytes]) -> TrustRule:
    about = f'[{SECTION}] "{name}"'
    try:
        rule_scope = scope(name)
    except InvalidRequest as error:
        raise InvalidRequest(f"[{SECTION}]: {error.message}", hint=error.hint) from None
    if value in (Verdict.ACCEPT.value, Verdict.REJECT.value):
        return TrustRule(rule_scope, Verdict(value))
    if not isinstance(value, dict) or not value.get("signed-by"):
        raise InvalidRequest(
            f"{about}: {str(value)[:80]!r} is not a valid rule",
            hint='use "accept", "reject" or { signed-by = ["KEY.pub"] }',
        )
    for member in value:
        if member not in _MEMBERS:
            raise InvalidRequest(
                f"{about}: unknown key {member[:80]!r}", hint=f"known: {', '.join(_MEMBERS)}"
            )
    listed = value["signed-by"]
    texts = [listed] if isinstance(listed, str) else listed
    if not isinstance(texts, list) or not all(isinstance(t, str) and t for t in texts):
        raise InvalidRequest(f"{about} signed-by: must be a list of public keys")
    try:
        trusted = tuple(_public(text, number, key) for number, text in enumerate(texts, 1))
    except InvalidRequest as error:
        raise InvalidRequest(f"{about}: {error.message}", hint=error.hint) from None
    return TrustRule(
        rule_scope, Verdict.SIGNED_BY, trusted, _signed_as(about, value.get("signed-as", ""))
    )


def _public(text: str, number: int, key: Callable[[str], bytes]) -> keys.PublicKey:
    if text.lstrip().startswith(_PEM):
        return keys.public_key(text.encode(), f"key {number}")
    if "\0" in text:
        raise InvalidRequest("the path of a key contains a null byte")
    return keys.public_key(key(text), text)


def _signed_as(about: str, value: object) -> str:
    if not value:
        return ""
    if not isinstance(value, str) or ":" in value.rpartition("/")[2] or "@" in value:
        raise InvalidRequest(f"{about} signed-as: must be a repository without a tag")
    reference = parse_reference(value)
    return f"{reference.domain}/{reference.path}"
