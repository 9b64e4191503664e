"""The README and the pages say what is so."""

import ast
import importlib.util
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import click
import pytest
from tests.certificates import make_certificate

from headrace.cli.exits import Exit
from headrace.cli.main import COMMANDS, cli, run_command

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(
    [
        *DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md",
        *ROOT.glob("src/headrace/adapters/*/README.md"),
    ]
)  # fmt: skip
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
GENERATED = ("cli", "codes", "formats", "http", "metrics", "parts", "plant")
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")
SECTIONS = ("plant", "store", "profiles", "adapters", "pipelines", "runtime", "api", "version")


def blocks(text, *languages):
    """The blocks of code of these languages, without the indent of what they stand in."""
    for match in FENCE.finditer(text):
        if match[2] in languages:
            yield re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)


@pytest.fixture(scope="module")
def generated():
    spec = importlib.util.spec_from_file_location("build", DOCS / "build.py")
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    return build.pages()


def test_every_generated_page_is_known(generated):
    assert set(generated) == {f"reference/{name}.md" for name in GENERATED}


@pytest.mark.parametrize("name", GENERATED)
def test_pages_follow_from_the_code(generated, name):
    text = generated[f"reference/{name}.md"]
    assert TEXTS[f"docs/reference/{name}.md"] == text, "the code changed: run python docs/build.py"


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    for target in LINK.findall(FENCE.sub("", TEXTS[name])):
        assert ((ROOT / name).parent / target).exists(), f"{name}: {target}"


# --- commands ------------------------------------------------------------------------------------------


def command_lines():
    """(page, words) of each line of a shell block that calls headrace."""
    for name, text in TEXTS.items():
        for block in blocks(text, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                yield from ((name, words) for words in calls(line))
        for block in re.findall(r"(?<=\n\n)((?: {4}headrace [^\n]*\n)+)", text):
            for line in block.splitlines():
                yield from ((name, words) for words in calls(line))


def calls(line):
    """The words after ``headrace`` of each command of a line: pipes, redirections and comments are the shell's."""
    shell = shlex.shlex(line, posix=True, punctuation_chars=";|&<>")
    shell.whitespace_split, shell.commenters = True, "#"
    parts = [[]]
    skip = False
    for word in shell:
        if set(word) <= set(";|&"):
            parts.append([])
        elif set(word) <= set("<>"):
            skip = True
            if parts[-1] and parts[-1][-1].isdecimal():  # 2>> plant.log
                parts[-1].pop()
        elif skip:
            skip = False
        else:
            parts[-1].append(word)
    for words in parts:
        while words and (re.fullmatch(r"\w+=.*", words[0]) or words[0] in ("uv", "run", "sudo", "-u")):
            words = words[1:] if words[0] != "-u" else words[2:]
        if words and re.search(r"(^|/)headrace$", words[0]):
            yield words[1:]


LINES = [(name, tuple(words)) for name, words in command_lines()]


FILES = ("broker.jsonl",)
"""Named by commands that say at once when a file is not there."""


def test_the_pages_show_every_command():
    assert {words[0] for _, words in LINES} >= set(COMMANDS)


@pytest.mark.parametrize(
    ("name", "words"), LINES, ids=lambda value: " ".join(value) if isinstance(value, tuple) else None
)
def test_command_lines_are_understood(name, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in FILES:
        (tmp_path / file).touch()
    context = click.Context(cli, info_name="headrace")
    command, rest = cli, list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(context, rest[0])
        assert found is not None, f"{name}: headrace {' '.join(words)}"
        command, rest = found, rest[1:]
    if "--help" in rest:
        return
    command.make_context(words[0], rest, parent=context)


def test_commands_in_prose_exist():
    for name, text in TEXTS.items():
        for words in re.findall(r"`(?:uv run )?headrace ([a-z]+(?: [a-z]+)?)[ `]", FENCE.sub("", text)):
            verb, _, inner = words.partition(" ")
            assert verb in COMMANDS, f"{name}: headrace {words}"
            command = cli.get_command(click.Context(cli), verb)
            if inner and isinstance(command, click.Group):
                assert inner in command.commands, f"{name}: headrace {words}"


# --- samples -------------------------------------------------------------------------------------------


def plant_files():
    """(page, text) of each TOML block that is a plant file, or a part of one."""
    for name, text in TEXTS.items():
        for block in blocks(text, "toml"):
            head = {
                line.strip("[]").split(".")[0].split(" ")[0] for line in block.splitlines() if line[:1] != "#"
            }
            if "telegraf.conf" not in block and "project" not in head and head & set(SECTIONS):
                yield name, block


PLANTS = list(plant_files())


def test_there_are_plant_files_to_check():
    assert len(PLANTS) >= 9
    assert {"README.md", "docs/tutorial.md", "docs/how-to/mqtt.md"} <= {name for name, _ in PLANTS}


@pytest.mark.parametrize(("name", "text"), PLANTS, ids=[name for name, _ in PLANTS])
def test_plant_files_are_right(name, text, tmp_path, monkeypatch, capsys):
    for variable in ("MQTT_PASSWORD", "OPCUA_PASSWORD"):
        monkeypatch.setenv(variable, "secret")
    for file in ("headrace.der", "headrace.key.pem", "trusted"):
        (tmp_path / file).touch()
    monkeypatch.chdir(tmp_path)
    for table in blocks(TEXTS[name], "text"):
        if table.startswith("path,url"):
            (tmp_path / "ovens.csv").write_text(table, encoding="utf-8")
        if table.startswith("profile,signal"):
            (tmp_path / "ovens-tags.csv").write_text(table, encoding="utf-8")
        if table.startswith("path,address"):
            (tmp_path / "broker-tags.csv").write_text(table, encoding="utf-8")
    if "cert_file" in text:
        make_certificate(tmp_path)
        for made, named in (("cert.pem", "plant.pem"), ("cert.pem", "clients.pem"), ("key.pem", "plant.key")):
            shutil.copy(tmp_path / made, tmp_path / named)
    whole = text if "version" in tomllib.loads(text) else f"version = 1\n{text}"
    (tmp_path / "plant.toml").write_text(whole, encoding="utf-8")
    assert run_command(["check"]) == Exit.DONE, f"{name}: {capsys.readouterr().err}"


def test_python_in_the_pages_compiles():
    for name, text in TEXTS.items():
        for block in blocks(text, "python"):
            assert ast.parse(block, name)


def test_the_package_description_of_the_site_holds():
    """The site has the page of every adapter that has one, under its name, and no other."""
    adapters = {p.parent.name for p in ROOT.glob("src/headrace/adapters/*/README.md")}
    expected = {
        f"src/headrace/adapters/{name}/README.md": f"reference/adapters/{name}.md" for name in adapters
    }
    assert {file: page for file, page in elsewhere().items() if "adapters/" in file} == expected


def elsewhere():
    """What the site's hooks call so; they are not imported, for not every Python that we run on has mkdocs."""
    for node in ast.parse((DOCS / "hooks.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ELSEWHERE":
            return eval(ast.unparse(node.value))
    raise AssertionError("docs/hooks.py has no ELSEWHERE")


def test_the_format_page_knows_every_codec_and_every_folder():
    from headrace.codecs.registry import TIME_CODECS, VALUE_CODECS

    text = TEXTS["docs/format.md"]
    names = [*TIME_CODECS.built_in, *VALUE_CODECS.built_in]
    assert [name for name in names if f"`{name}`" not in text] == []
    assert [name for name in names if f" `{name}`\n" not in TEXTS["docs/reference/formats.md"]] == []
    for folder in (
        "segments",
        "manifests",
        "commits",
        "directory",
        "journal",
        "state",
        "rejects",
        "config",
        "rollups",
    ):
        assert f"`{folder}/" in text
