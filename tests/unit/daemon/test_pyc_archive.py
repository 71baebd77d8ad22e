"""The engine's modules from an archive."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jaula.daemon import engine_archive

SOURCE = str(Path(engine_archive.__file__).parents[2])
MODULE = '''"""A text."""

def checked(value: "int") -> "int":
    """Another text."""
    assert value, "no value"
    return value

class Kind:
    """A third text."""

    field: int
'''


def python(script: str) -> str:
    """Return the output of a script in an interpreter that starts as the engine does."""
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-X",
            "utf8",
            "-c",
            f"import sys\nsys.path[:0] = {[SOURCE]!r}\n{script}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A directory with a module, a package and their archive."""
    (tmp_path / "subject.py").write_text(MODULE)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/__init__.py").write_text("VALUE = 2\n")
    (tmp_path / "folder/inner.py").write_text("from folder import VALUE\n")
    write(tmp_path)
    return tmp_path


def write(place: Path) -> None:
    files = {
        "jaula.daemon.engine_archive": engine_archive.__file__,
        "subject": str(place / "subject.py"),
        "folder": str(place / "folder/__init__.py"),
        "folder.inner": str(place / "folder/inner.py"),
    }
    python(
        "from jaula.oci import build_pyc_archive\n"
        f"build_pyc_archive.write_files({str(place / 'archive')!r}, {files!r}, {{}})"
    )


def taken(place: Path, script: str) -> str:
    return python(
        f"sys.path.insert(0, {str(place)!r})\n"
        "from jaula.daemon import engine_archive as pyc_archive\n"
        f"pyc_archive.archive_path = lambda: {str(place / 'archive')!r}\n"
        f"pyc_archive.install()\n{script}"
    )


def test_code_has_no_texts_and_annotations_but_assertions(made: Path) -> None:
    printed = taken(
        made,
        "import subject\n"
        "print(type(subject.__loader__).__module__, subject.__doc__, subject.checked.__doc__,\n"
        "    subject.checked.__annotations__, subject.Kind.__doc__, subject.Kind.__annotations__)\n"
        "try: subject.checked(0)\n"
        "except AssertionError as error:\n"
        "    import traceback\n"
        "    frame = traceback.extract_tb(error.__traceback__)[-1]\n"
        "    print(error, frame.lineno, frame.line)",
    )
    kind = "{'field': <class 'int'>}"
    assert printed == (
        f"jaula.daemon.engine_archive None None {{}} None {kind}\n"
        'no value 5 assert value, "no value"'
    )


def test_a_package_and_its_modules_are_taken(made: Path) -> None:
    printed = taken(
        made,
        "import folder.inner\n"
        "print(folder.inner.VALUE, folder.__path__, folder.inner.__package__,\n"
        "    type(folder.inner.__loader__).__module__)",
    )
    assert printed == f"2 ['{made}/folder'] folder jaula.daemon.engine_archive"


def test_a_changed_source_is_imported_as_usual(made: Path) -> None:
    (made / "subject.py").write_text(MODULE.replace("return value", "return -value"))
    printed = taken(made, "import subject\nprint(subject.checked(3), subject.__doc__)")
    assert printed == "-3 A text."


def test_a_module_of_another_tree_is_not_used(
    made: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The archive was copied with its tree, and the former tree is still there."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(made, copy, dirs_exist_ok=True)
    printed = taken(
        copy, "import subject, folder.inner\nprint(subject.__file__, folder.inner.__file__)"
    )
    assert printed == f"{copy}/subject.py {copy}/folder/inner.py"


def test_modules_are_found_after_the_index_was_released(made: Path) -> None:
    printed = taken(
        made,
        "import subject\npyc_archive.release()\nimport folder\n"
        "print(subject.__doc__, type(folder.__loader__).__module__)",
    )
    assert printed == "None jaula.daemon.engine_archive"


@pytest.mark.parametrize("released", [True, False])
def test_a_replaced_archive_is_not_used(made: Path, *, released: bool) -> None:
    os.rename(made / "archive", made / "former")
    write(made)
    os.rename(made / "archive", made / "next")
    os.rename(made / "former", made / "archive")
    printed = taken(
        made,
        "import os, subject\n"
        f"os.rename({str(made / 'next')!r}, {str(made / 'archive')!r})\n"
        f"if {released}: pyc_archive.release()\n"
        "import folder\nprint(subject.__doc__, type(folder.__loader__).__name__)",
    )
    assert printed == "None SourceFileLoader"


@pytest.mark.parametrize("content", [b"", b"1234", b"12345678rest"])
def test_a_file_that_is_not_an_archive_is_not_used(made: Path, content: bytes) -> None:
    (made / "archive").write_bytes(content)
    assert taken(made, "import subject\nprint(subject.__doc__)") == "A text."
