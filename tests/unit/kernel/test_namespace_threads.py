"""Threads that may leave the process's namespaces."""

from __future__ import annotations

import threading

import pytest

from jaula.kernel.namespace_threads import in_unshared_thread


def test_work_is_done_in_another_thread_and_its_result_returned() -> None:
    assert in_unshared_thread(threading.get_ident) != threading.get_ident()
    assert in_unshared_thread(lambda: None) is None


def test_a_failure_is_raised_in_the_calling_thread() -> None:
    def fail() -> None:
        raise PermissionError("no")

    with pytest.raises(PermissionError, match="no"):
        in_unshared_thread(fail)
