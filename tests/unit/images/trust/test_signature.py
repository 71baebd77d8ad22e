"""Which of several signatures is valid, and the error if none is."""

from __future__ import annotations

import pytest

from jaula.features.trust import signature, signing_keys
from jaula.features.trust.signature import Signature, UnsignedImage
from jaula.features.trust.simple_signing import SimpleSigning, write

DIGEST, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
PLACE = "r.io/team/app"
KEY, STRANGER = signing_keys.generate(), signing_keys.generate("ed25519")


def made(key: signing_keys.PrivateKey = KEY, digest: str = DIGEST, name: str = PLACE) -> Signature:
    text = write(SimpleSigning(digest, name))
    return Signature(text, key.sign(text))


def find(*signatures: Signature, tag: str | None = "1") -> signature.VerifiedSignature:
    return signature.find(signatures, [KEY.public], DIGEST, PLACE, tag)


def test_the_valid_signature_is_found_among_others() -> None:
    result = find(made(STRANGER), made(digest=OTHER), made(name="r.io/x"), made())
    assert result.fingerprint == KEY.public.fingerprint
    assert result.claim == SimpleSigning(DIGEST, PLACE)


def test_any_of_several_keys_will_do() -> None:
    trusted = [signing_keys.generate().public, STRANGER.public]
    result = signature.find([made(STRANGER)], trusted, DIGEST, PLACE, "1")
    assert result.fingerprint == STRANGER.public.fingerprint


def test_a_missing_signature_is_reported() -> None:
    with pytest.raises(UnsignedImage, match=r"^it has no signature$"):
        find()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (made(STRANGER), "1 by other keys"),
        (made(digest=OTHER), "1 of another image"),
        (made(name="r.io/x"), r"1 for another name \(r.io/x\)"),
        (made(name="r.io/team/app:2"), r"1 for another name \(r.io/team/app:2\)"),
        (Signature(b"hello", KEY.sign(b"hello")), "1 with an unreadable payload"),
        (
            Signature(write(SimpleSigning(DIGEST, PLACE)), made(digest=OTHER).value),
            "1 by other keys",
        ),
    ],
)
def test_the_reason_why_signatures_are_invalid_is_reported(given: Signature, reason: str) -> None:
    with pytest.raises(UnsignedImage, match=f"no valid signature: {reason}$"):
        find(given)


def test_reasons_are_counted() -> None:
    with pytest.raises(UnsignedImage, match="2 by other keys, 1 of another image"):
        find(made(STRANGER), made(STRANGER), made(digest=OTHER))


def test_the_number_of_verified_signatures_is_limited() -> None:
    with pytest.raises(UnsignedImage):
        find(*[made(STRANGER)] * signature.COUNT_LIMIT, made())


def test_control_characters_of_a_name_do_not_reach_a_terminal() -> None:
    with pytest.raises(UnsignedImage) as caught:
        find(made(name="\x1b]0;x"))
    assert "\x1b" not in caught.value.message
