"""Capability sets and seccomp filters as the kernel enforces them, in child processes."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import socket
import subprocess

import pytest

from harness.fork import child, refused
from jaula.kernel import capabilities, namespaces
from jaula.kernel import seccomp as kernel
from jaula.kernel.libc import libc
from jaula.kernel.namespaces import CLONE
from jaula.security.capability_sets import DEFAULT, mask, resolve
from jaula.security.seccomp import seccomp_filter

x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the i386 and x32 ABIs are of x86")


def confine() -> None:
    kernel.install(
        kernel.FilterProgram(seccomp_filter.build(seccomp_filter.default_profile(DEFAULT)))
    )


def test_capability_sets_are_read_back() -> None:
    def act() -> None:
        expected = mask(DEFAULT)
        capabilities.drop_bounding(expected)
        capabilities.clear_ambient()
        capabilities.capset(expected, expected, 0)
        assert capabilities.bounding() == expected
        assert capabilities.capget() == (expected, expected, 0)
        assert capabilities.read_status_masks("self") == {
            "inheritable": 0, "permitted": expected, "effective": expected, "bounding": expected,
            "ambient": 0,
        }  # fmt: skip

    child(act)


def test_a_missing_capability_is_enforced() -> None:
    def act() -> None:
        expected = mask(resolve(drop=["net_raw"]).bounding)
        capabilities.drop_bounding(expected)
        capabilities.capset(expected, expected, 0)
        refused(errno.EPERM, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))

    child(act)


def test_ambient_capabilities_survive_a_program_of_another_user() -> None:
    def act() -> None:
        one = mask(["net_bind_service"])
        capabilities.keep_on_setuid(True)
        os.setresuid(65534, 65534, 65534)
        capabilities.capset(one, one, one)
        capabilities.raise_ambient(one)
        output = subprocess.run(
            ["cat", "/proc/self/status"], capture_output=True, text=True, check=True
        )
        assert capabilities.parse_status_masks(output.stdout)["effective"] == one

    child(act)


def test_the_filter_is_in_force_and_programs_still_run() -> None:
    def act() -> None:
        confine()
        with open("/proc/self/status") as status:
            assert "Seccomp:\t2\n" in status.read()
        output = subprocess.run(["sh", "-c", "id -u | cat"], capture_output=True, check=True)
        assert output.stdout == b"0\n"

    child(act)


def test_the_filter_loads_in_a_user_namespace_without_no_new_privileges() -> None:
    def act() -> None:
        namespaces.unshare(CLONE.NEWUSER)
        confine()
        with open("/proc/self/status") as status:
            text = status.read()
        assert "Seccomp:\t2\n" in text
        assert "NoNewPrivs:\t0\n" in text

    child(act)


def test_refused_calls_return_eperm() -> None:
    def act() -> None:
        confine()
        refused(errno.EPERM, lambda: namespaces.unshare(CLONE.NEWUSER))
        refused(errno.EPERM, lambda: namespaces.unshare(CLONE.NEWNS))
        refused(errno.EPERM, lambda: socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET))
        refused(errno.EPERM, lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))
        refused(errno.EPERM, lambda: fcntl.ioctl(0, 0x5412, b"x"))
        refused(errno.ENOSYS, lambda: namespaces.clone3(CLONE.NEWUSER))
        socket.socket(socket.AF_INET).close()
        socket.socket(socket.AF_UNIX).close()

    child(act)


@x86
def test_i386_calls_from_a_64_bit_program_are_filtered_too() -> None:
    def act() -> None:
        # push rbx; mov eax,edi; mov ebx,esi; mov ecx,edx; int 0x80; pop rbx; ret
        code = bytes.fromhex("53 89f8 89f3 89d1 cd80 5b c3")
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        at = ctypes.addressof(ctypes.c_char.from_buffer(page))
        call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)(at)
        if call(20, 0, 0) == -errno.ENOSYS:
            return  # a kernel without the i386 ABI
        confine()
        assert call(20, 0, 0) == os.getpid()
        assert call(102, 1, 0) == -errno.EPERM  # socketcall(SYS_SOCKET)
        assert call(102, 8, 0) == -errno.EPERM  # socketcall(SYS_SOCKETPAIR)
        assert call(102, 3, 0) == -errno.EFAULT  # socketcall(SYS_CONNECT)
        assert call(359, 38, 5) == -errno.EPERM  # socket(AF_ALG)
        made = call(359, 1, 1)  # socket(AF_UNIX)
        assert made >= 0
        assert call(310, 0x10000000, 0) == -errno.EPERM  # unshare(CLONE_NEWUSER)

    child(act)


@x86
def test_x32_calls_return_enosys() -> None:
    def act() -> None:
        confine()
        call = libc["syscall"]
        call.restype = ctypes.c_long
        ctypes.set_errno(0)
        assert call(ctypes.c_long(0x40000000 | 39)) == -1  # getpid
        assert ctypes.get_errno() == errno.ENOSYS

    child(act)


def test_an_invalid_program_is_not_loaded() -> None:
    for program in (b"", b"1234567", b"\0" * 8 * 4097):
        with pytest.raises(ValueError, match="not a valid BPF program"):
            kernel.FilterProgram(program)
    with pytest.raises(OSError, match="seccomp"):
        kernel.install(b"\xff" * 8)


def test_the_podman_profile_of_this_machine_loads() -> None:
    path = "/usr/share/containers/seccomp.json"
    if not os.path.exists(path):
        pytest.skip("containers-common is not installed")
    with open(path, "rb") as file:
        program = seccomp_filter.build(seccomp_filter.from_docker(file.read(), DEFAULT))

    def act() -> None:
        kernel.install(program)
        subprocess.run(["true"], check=True)

    child(act)
