"""The shape of the source: sizes, names, what is never written. CONTRIBUTING.md says why."""

import ast
import collections
import re
import tokenize
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "headrace"
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
COVERED = ("core", "adapters", "ingest")
ADAPTERS = sorted(p.parent for p in SOURCE.glob("adapters/*/adapter.py"))

MAX_FUNCTION_LINES, MAX_FILE_LINES, MAX_PARAMETERS = 70, 600, 7
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base_utils"}


def name_of(file):
    return str(file.relative_to(ROOT))


def functions():
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name_of(file)}:{node.lineno} {node.name}", node


def n_lines(node):
    """Lines of a function from its `def` on, without its docstring."""
    whole = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node, clean=False) is None:
        return whole
    return whole - (node.body[0].end_lineno - node.body[0].lineno + 1)


def is_click_command(node):
    return any("command" in ast.unparse(d) or "option" in ast.unparse(d) for d in node.decorator_list)


def is_way_in(node):
    """A kernel's own door, behind a function with few parameters: it gets arrays one by one."""
    return node.name.startswith("_") and any("kernel" in ast.unparse(d) for d in node.decorator_list)


def n_parameters(node):
    arguments = node.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return len([n for n in names if n not in ("self", "cls")])


def test_functions_are_short():
    assert not {where: n_lines(node) for where, node in functions() if n_lines(node) > MAX_FUNCTION_LINES}


def test_functions_take_few_parameters():
    # A command has a parameter for each of its options; the options are the interface there. Arrays of a tuple take
    # Numba's dispatcher a microsecond each.
    measured = ((w, node) for w, node in functions() if not (is_click_command(node) or is_way_in(node)))
    found = {where: n_parameters(node) for where, node in measured}
    assert not {where: n for where, n in found.items() if n > MAX_PARAMETERS}


def test_files_are_short():
    sizes = {name_of(f): len(f.read_text(encoding="utf-8").splitlines()) for f in FILES}
    assert not {where: n for where, n in sizes.items() if n > MAX_FILE_LINES}


def test_a_type_name_is_used_once():
    where = collections.defaultdict(list)
    for file, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where[node.name].append(name_of(file))
    assert not {name: files for name, files in where.items() if len(files) > 1}


def test_modules_are_named_by_what_they_hold():
    assert not [name_of(f) for f in FILES if {f.stem, f.parent.name} & VAGUE]


def test_init_files_are_one_docstring():
    """Names are imported from the module that defines them; only the package itself offers some, lazily."""
    for file, tree in TREES.items():
        if file.name == "__init__.py" and file.parent != SOURCE:
            assert [type(n) for n in tree.body] == [ast.Expr], name_of(file)


def test_every_module_says_what_it_is():
    assert not [name_of(f) for f, tree in TREES.items() if not ast.get_docstring(tree)]


def public_methods():
    for file, tree in TREES.items():
        for kind in ast.walk(tree):
            if isinstance(kind, ast.ClassDef) and not kind.name.startswith("_"):
                for node in kind.body:
                    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith(
                        "_"
                    ):
                        yield f"{name_of(file)}:{node.lineno} {kind.name}.{node.name}", node


def test_public_methods_say_what_they_do():
    """Once is enough: what a protocol documents, its implementations need not say again."""
    documented = {node.name for _, node in public_methods() if ast.get_docstring(node)}
    assert not [where for where, node in public_methods() if node.name not in documented]


def comments(file):
    with tokenize.open(file) as lines:
        for token in tokenize.generate_tokens(lines.readline):
            if token.type == tokenize.COMMENT:
                yield f"{name_of(file)}:{token.start[0]}", token.string


def test_nothing_is_left_for_later():
    found = [w for f in FILES for w, text in comments(f) if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)]
    assert not found


def test_no_line_of_the_data_path_is_excused_from_coverage():
    found = [
        where
        for file in FILES
        if file.relative_to(SOURCE).parts[0] in COVERED
        for where, text in comments(file)
        if re.search(r"pragma|no.?cover", text, re.IGNORECASE)
    ]
    assert not found


def test_chance_is_always_handed_in():
    """``default_rng()`` without a seed can't be replayed."""
    found = [
        f"{name_of(file)}:{node.lineno}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).endswith(("default_rng", "SeedSequence"))
        and not (node.args or node.keywords)
    ]
    assert not found


def test_kernels_are_compiled_in_one_way():
    """Other decorators would compile without a cache, with fast arithmetic, or in threads of their own.

    Codecs have a way of their own, which says why.
    """
    found = [
        f"{name_of(file)}:{node.lineno}"
        for file, tree in TREES.items()
        if file not in (SOURCE / "core" / "kernels.py", SOURCE / "codecs" / "compiled.py")
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(
            n.split(".")[0] == "numba"
            for n in [getattr(node, "module", "") or "", *(a.name for a in node.names)]
        )
    ]
    assert not found


@pytest.mark.parametrize("folder", ADAPTERS, ids=lambda p: p.name)
def test_an_adapter_folder_tells_the_whole_story(folder):
    wanted = {
        "__init__.py",
        "adapter.py",
        "config.py",
        "simulator.py",
        "README.md",
        "sample.toml",
        "manifest.toml",
    }
    assert wanted <= {p.name for p in folder.iterdir()}
    tomllib.loads((folder / "sample.toml").read_text(encoding="utf-8"))
    tomllib.loads((folder / "manifest.toml").read_text(encoding="utf-8"))
