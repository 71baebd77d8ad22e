"""Static program that executes another one from a read-only clone of its mount. Pure.

The launcher of ``jaula-runtime`` starts the interpreter with it for the commands that put a process
into a container. :mod:`jaula.oci.cloned_binary` does the same with two starts of the interpreter.
The usage is ``clone-exec PROGRAM ARGUMENT...``. If a step fails, as without privileges, the program
is executed from its own mount.

It is assembled here and needs no compiler and no C library. Sources: elf(5), syscall(2) and the
initial stack of the System V ABI for x86-64.
"""

from __future__ import annotations

import struct

NAME = "clone-exec"
MACHINE = "x86_64"
"""The machine of the program, as in uname(2)."""

_ADDRESS = 0x400000
_HEADERS = 64 + 56  # bytes of the ELF header and of its one program header
_CODE = (
    "48 89 e3",  # mov rbx, rsp: argc, argv[0], argv[1] ..., null, environment
    "4c 8b 63 10",  # mov r12, [rbx+16]: the program, argv[1]
    "48 8b 0b",  # mov rcx, [rbx]: argc
    "4c 8d 74 cb 10",  # lea r14, [rbx+rcx*8+16]: the environment
    # fd = open_tree(AT_FDCWD, program, OPEN_TREE_CLONE | O_CLOEXEC)
    "bf 9c ff ff ff",  # mov edi, -100
    "4c 89 e6",  # mov rsi, r12
    "ba 01 00 08 00",  # mov edx, 0x80001
    "b8 ac 01 00 00",  # mov eax, 428
    "0f 05",  # syscall
    "41 89 c5",  # mov r13d, eax
    "85 c0",  # test eax, eax
    "78 {plain}",  # js plain
    # mount_setattr(fd, "", AT_EMPTY_PATH, {attr_set: MOUNT_ATTR_RDONLY}, 32)
    "89 c7",  # mov edi, eax
    "be {empty}",  # mov esi, empty
    "ba 00 10 00 00",  # mov edx, 0x1000
    "41 ba {attributes}",  # mov r10d, attributes
    "41 b8 20 00 00 00",  # mov r8d, 32
    "b8 ba 01 00 00",  # mov eax, 442
    "0f 05",  # syscall
    "85 c0",  # test eax, eax
    "78 {plain}",  # js plain
    # execveat(fd, "", argv + 1, environment, AT_EMPTY_PATH)
    "44 89 ef",  # mov edi, r13d
    "be {empty}",  # mov esi, empty
    "48 8d 53 10",  # lea rdx, [rbx+16]
    "4d 89 f2",  # mov r10, r14
    "41 b8 00 10 00 00",  # mov r8d, 0x1000
    "b8 42 01 00 00",  # mov eax, 322
    "0f 05",  # syscall
    "plain:",
    # execve(program, argv + 1, environment)
    "4c 89 e7",  # mov rdi, r12
    "48 8d 73 10",  # lea rsi, [rbx+16]
    "4c 89 f2",  # mov rdx, r14
    "b8 3b 00 00 00",  # mov eax, 59
    "0f 05",  # syscall
    # exit_group(127)
    "bf 7f 00 00 00",  # mov edi, 127
    "b8 e7 00 00 00",  # mov eax, 231
    "0f 05",  # syscall
)
_ATTRIBUTES = struct.pack("<4Q", 1, 0, 0, 0)  # struct mount_attr: attr_set is MOUNT_ATTR_RDONLY


def program() -> bytes:
    """Return the executable file: headers, code, attributes and an empty string."""
    sizes = [len(bytes.fromhex(_fill(line, "00", "00000000"))) for line in _CODE]
    size = sum(sizes)
    plain = sum(sizes[: _CODE.index("plain:")])
    attributes = _ADDRESS + _HEADERS + size
    empty = attributes + len(_ATTRIBUTES)
    code = bytearray()
    for line in _CODE:
        numbers = {
            "attributes": attributes.to_bytes(4, "little").hex(),
            "empty": empty.to_bytes(4, "little").hex(),
            "plain": f"{(plain - len(code) - 2) & 0xFF:02x}",
        }
        if not line.endswith(":"):
            code += bytes.fromhex(line.format(**numbers))
    content = bytes(code) + _ATTRIBUTES + b"\0"
    return _headers(_HEADERS + len(content)) + content


def _fill(line: str, offset: str, address: str) -> str:
    """Return a line with numbers of the right length; "" for a label."""
    if line.endswith(":"):
        return ""
    return line.format(plain=offset, empty=address, attributes=address)


def _headers(size: int) -> bytes:
    """Return the ELF header and the program header of one readable and executable segment."""
    identification = b"\x7fELF" + bytes((2, 1, 1, 0)) + bytes(8)
    entry = _ADDRESS + _HEADERS
    elf = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _ADDRESS, _ADDRESS, size, size, 0x1000)
    return identification + elf + segment
