"""Check the structure of the source: circles of files, and names of modules.

    .venv/bin/python scripts/structure.py [SOURCE]     # SOURCE: src/jaula of this clone

Circles. A file depends on each file of the tree that an import in it names. Imports in functions
and under ``TYPE_CHECKING`` count: they hide a circle from the interpreter, not from the reader.
Three things do not count:

* That an import of ``a.b.c`` runs ``a/__init__.py`` too, unless the import takes a name from it.
* Imports under ``TYPE_CHECKING`` in the module ``TYPES_ONLY``, which only names services' types.
* Imports of code that is text (``importlib.import_module``, the table of commands).

The output has one chain of imports for each circle, as short as possible. Circles that share an
import are printed once: cut the import and run the check again.

Names. A module or package is named by a noun of the field or by Docker's verb. A gerund is refused,
and so are words that the field does not know. ``WORDS`` are refused everywhere, ``PACKAGE_WORDS``
in one package, where the field has another term.

The exit status is 0 without a finding, 1 with findings, 2 if a file cannot be parsed.
"""

from __future__ import annotations

import ast
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parent.parent / "src/jaula"

# The container of services names the type of each service; each service takes the container.
TYPES_ONLY = "jaula.engine.model.services"

# Nouns that end in -ing: results, kernel objects, terms of Docker, CRI and cosign.
NOUNS = frozenset({"keyring", "logging", "ring", "setting", "signing", "streaming", "string"})
ADJECTIVES = frozenset({"non_blocking"})  # the mode of Docker's log drivers

_WORDS = """
about absent addressplan agents artifact aside asks assembly attachment bases beneath birth born
bridged buildsession bursts categories ceilings choices clock confine copyin copyout crew cursor
daemon_file daemon_hosts daemon_setting deed defaultdevices defaultplan destination doors
engines entrance evidence farewells faults filter findings folders foreign forms frames gate
gitcage gitroutes guard guide gzipped handshake holes hostfacts inside interior
interrupts keep keeper keepid keyfiles launch leftovers light link_lines log_settings
logging_options mandatory manual memberships midwife mistakes moments mount_kinds mountpoints
needed offers older outlet parented parts patience place placeholder placement places plans
poller porter portguard preparation preserved publisher quantities readings refusals
registry_settings relay remotes removal reservations rootview row scratch seccomp_words secured
segment segments sentence several shelf slim specbuild stanzas statedocument step_mounts
step_places storage_options strays subject supplies systempaths systemtrees trustedfile upkeep
upper_layer variables vault views visitor walk whole_trees writes
"""
WORDS = frozenset(_WORDS.split())

PACKAGE_WORDS: Mapping[str, frozenset[str]] = {
    package: frozenset(words.split())
    for package, words in {
        "api": "call connection conversation lines reply",
        "audit": "calls directories facts filters modules reach settings sockets tree trees",
        "cgroups": "entry rules tree",
        "cli": "creation detach failure packages usage",
        "confine": "syscalls",
        "daemon": "authority memory namespace service",
        "engine": "authority facts keys merge messages ports ranges runtimes sessions state states "
        "users",
        "images": "bdb catalogue challenge changes checks commands documents failures "
        "gitaddress inventory language licences lines lists modes ndb packages payload plan "
        "platforms proxies repositories substitution tree",
        "logs": "lines record remote series worker",
        "network": "directory files nameserver parent watch",
        "oci": "archive call interpreter table template",
        "rootless": "entry helpers scope",
        "runtime": "become channel command confined console copyup cpulist detach execute "
        "filesystems hierarchies labels limits mappings messages nodes notify operations ports "
        "streams translation",
        "security": "syscalls",
        "spec": "calls durations",
        "state": "chain entries journal",
        "storage": "changes",
    }.items()
}


class Import(NamedTuple):
    """One import in a file. ``typing``: it is under ``TYPE_CHECKING``."""

    module: str
    line: int
    typing: bool


class Module(NamedTuple):
    """One file."""

    name: str
    path: Path
    imports: tuple[Import, ...]


class Edge(NamedTuple):
    """An import of a file of the tree by another."""

    source: str
    target: str
    line: int
    typing: bool


# --- the imports ------------------------------------------------------------------------------


def module_name(path: Path, source: Path) -> str:
    """Return the dotted name of a file below ``source``, the directory of the root package."""
    parts = [source.name, *path.relative_to(source).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(text: str, name: str, *, package: bool) -> Iterator[Import]:
    """Yield the modules, and the names of modules, that a source text imports.

    ``from a import b`` yields ``a.b``, which may be a module or a name in one. A
    relative import that leaves the root package yields nothing.

    :raises SyntaxError: when the text is not Python.
    :raises ValueError: when the text has a null byte (before Python 3.12).
    """
    yield from _walk(ast.parse(text).body, name.split("."), package=package, typing=False)


def _walk(
    body: Iterable[ast.stmt], name: list[str], *, package: bool, typing: bool
) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, typing)
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, name, package=package)
            if base:
                for alias in node.names:
                    whole = base if alias.name == "*" else f"{base}.{alias.name}"
                    yield Import(whole, node.lineno, typing)
        elif isinstance(node, ast.If) and _is_type_checking(node.test):
            yield from _walk(node.body, name, package=package, typing=True)
            yield from _walk(node.orelse, name, package=package, typing=typing)
        else:
            for field in ("body", "orelse", "finalbody"):
                yield from _walk(getattr(node, field, ()), name, package=package, typing=typing)
            for inner in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
                yield from _walk(inner.body, name, package=package, typing=typing)


def _base(node: ast.ImportFrom, name: list[str], *, package: bool) -> str:
    """Return the module of ``from MODULE import``, or "" outside the root package."""
    if not node.level:
        return node.module or ""
    kept = len(name) - node.level + package
    if kept < 1:
        return ""
    return ".".join([*name[:kept], *([node.module] if node.module else [])])


def _is_type_checking(test: ast.expr) -> bool:
    if isinstance(test, ast.Attribute):
        return test.attr == "TYPE_CHECKING"
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def read(source: Path) -> tuple[dict[str, Module], list[str]]:
    """Return the modules by name, and an error for each file that cannot be parsed."""
    modules, errors = {}, []
    for path in sorted(source.rglob("*.py")):
        name = module_name(path, source)
        try:
            text = path.read_text(encoding="utf-8")
            imports = tuple(imports_of(text, name, package=path.stem == "__init__"))
        except (SyntaxError, ValueError) as error:  # ValueError: not UTF-8, or a null byte
            errors.append(f"{path}: {error}")
            continue
        modules[name] = Module(name, path, imports)
    return modules, errors


def edges(modules: Mapping[str, Module], types_only: str = TYPES_ONLY) -> dict[str, list[Edge]]:
    """Return the imports inside the tree, one for each pair of files, by the importing file."""
    graph: dict[str, list[Edge]] = {name: [] for name in modules}
    for module in modules.values():
        targets: dict[str, Edge] = {}
        for name, line, typing in module.imports:
            target = name if name in modules else name.rpartition(".")[0]
            if target not in modules or target == module.name:
                continue
            if typing and module.name == types_only:
                continue
            edge = Edge(module.name, target, line, typing)
            if target not in targets or (targets[target].typing and not typing):
                targets[target] = edge
        graph[module.name] = list(targets.values())
    return graph


# --- circles ----------------------------------------------------------------------------------


def components(graph: Mapping[str, list[Edge]]) -> list[list[str]]:
    """Return the strongly connected components of two files or more, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    result: list[list[str]] = []
    for root in graph:
        if root in order:
            continue
        work = [(root, iter(graph[root]))]
        order[root] = low[root] = len(order)
        stack.append(root)
        on_stack.add(root)
        while work:
            name, rest = work[-1]
            for edge in rest:
                target = edge.target
                if target not in order:
                    order[target] = low[target] = len(order)
                    stack.append(target)
                    on_stack.add(target)
                    work.append((target, iter(graph[target])))
                    break
                if target in on_stack:
                    low[name] = min(low[name], order[target])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == order[name]:
                    index = stack.index(name)
                    members = stack[index:]
                    del stack[index:]
                    on_stack.difference_update(members)
                    if len(members) > 1:
                        result.append(sorted(members))
    return sorted(result)


def shortest_circle(graph: Mapping[str, list[Edge]], members: Iterable[str]) -> list[Edge]:
    """Return the shortest circle inside ``members``, empty if there is none."""
    inside = set(members)
    best: list[Edge] = []
    for start in sorted(inside):
        came: dict[str, Edge] = {}
        queue = deque([start])
        while queue and start not in came:
            for edge in graph[queue.popleft()]:
                if edge.target in inside and edge.target not in came:
                    came[edge.target] = edge
                    queue.append(edge.target)
        if start in came:
            chain = [came[start]]
            while chain[0].source != start:
                chain.insert(0, came[chain[0].source])
            if not best or len(chain) < len(best):
                best = chain
    return best


def circles(graph: Mapping[str, list[Edge]]) -> list[list[Edge]]:
    """Return circles that share no import, shortest first, until none is left."""
    rest = {name: list(own) for name, own in graph.items()}
    result = []
    for members in components(rest):
        while chain := shortest_circle(rest, members):
            result.append(chain)
            for edge in chain:
                rest[edge.source].remove(edge)
    return result


# --- names ------------------------------------------------------------------------------------


def name_errors(name: str) -> Iterator[str]:
    """Yield an error for each rule that the last word of a dotted name breaks."""
    _, *packages, word = name.split(".") if "." in name else ("", name)
    if word in ("__main__", "__init__"):
        return
    if word.endswith("ing") and word.rpartition("_")[2] not in NOUNS and word not in ADJECTIVES:
        yield f"'{word}' is a gerund: use Docker's verb or a noun of the field"
    if word in WORDS or (packages and word in PACKAGE_WORDS.get(packages[0], ())):
        yield f"'{word}' is not a term of the field here"


# --- the check --------------------------------------------------------------------------------


def findings(source: Path) -> tuple[list[str], list[str]]:
    """Return the findings, and the errors of files that cannot be parsed."""
    modules, errors = read(source)
    lines = []
    for chain in circles(edges(modules)):
        lines.append(f"circle of {len(chain)} files:")
        for edge in chain:
            path = modules[edge.source].path.relative_to(source.parent)
            how = " (TYPE_CHECKING)" if edge.typing else ""
            lines.append(f"    {path}:{edge.line} imports {edge.target}{how}")
    for module in modules.values():
        path = module.path.relative_to(source.parent)
        lines += [f"{path}: {error}" for error in name_errors(module.name)]
    return lines, errors


def main(words: list[str]) -> int:
    """Run the check and return the exit status."""
    source = Path(words[0]).resolve() if words else SOURCE
    if not (source / "__init__.py").is_file():
        sys.stderr.write(f"structure: {source} is not a Python package\n")
        return 2
    lines, errors = findings(source)
    for line in lines:
        sys.stdout.write(f"{line}\n")
    for error in errors:
        sys.stderr.write(f"structure: {error}\n")
    if errors:
        return 2
    number = sum(not line.startswith(" ") for line in lines)
    sys.stdout.write(f"structure: {number} findings\n")
    return int(number > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
