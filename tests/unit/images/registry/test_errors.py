"""Errors of registries and of token servers."""

from __future__ import annotations

import pytest

from jaula.images.registry.registry_errors import registry_error


@pytest.mark.parametrize(
    ("status", "data", "code", "message"),
    [
        (401, b'{"details":"incorrect username or password"}', "unauthorized", "incorrect user"),
        (401, b'{"message":"the account is locked"}', "unauthorized", "the account is locked"),
        (400, b'{"error":"x","error_description":"token is expired"}', "", "token is expired"),
        (401, b"{}", "unauthorized", "authentication required"),
        (401, b"<html>", "unauthorized", "authentication required"),
        (401, b'{"details":5}', "unauthorized", "authentication required"),
        (503, b"", "", "503 Service Unavailable"),
        (403, b'{"errors":[{"code":"DENIED","message":"no"}],"details":"y"}', "denied", "no"),
        (401, b'{"details":"a\\u001bb"}', "unauthorized", "a?b"),
    ],
)
def test_the_reason_of_the_server_is_reported(
    status: int, data: bytes, code: str, message: str
) -> None:
    error = registry_error(status, data)
    assert error.code == code
    assert message in str(error)
