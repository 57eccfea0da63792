"""Pages of the site that are written elsewhere, as a hook of mkdocs.

README, change log, contributing and benchmarks from the root of the repository; the tutorial from
its notebook; a list of files for each record; the recipes; and the API reference: the public names,
and a page for each folder of the package.
"""

import ast
import base64
import json
import posixpath
import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from eqprop.cli.list import errors
from eqprop.recipes.catalogue import RECIPES
from eqprop.recipes.series import SERIES

DOCS = Path(__file__).parent
ROOT = DOCS.parent
ROOT_MODULES = ("errors", "numerics", "types", "sklearn")
"""Modules in no folder."""
COPIES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""Where a file of the repository appears in the site."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Adds to the navigation the pages of docs/ that it does not list, and the API reference."""
    assert config.nav is not None
    listed = str(config.nav)
    pages = sorted(path.name for path in DOCS.glob("*.md") if path.name not in listed)
    config.nav += [{name.removesuffix(".md").capitalize(): name} for name in pages]
    root = {", ".join(ROOT_MODULES): "api/root.md"}
    pages = [{"Public names": "api/index.md"}, root, *({f: f"api/{f}.md"} for f in folders())]
    config.nav.append({"API": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds all pages that are not files in docs/."""

    def add(uri: str, content: str | bytes) -> None:
        files.append(File.generated(config, uri, content=content))

    for source, uri in COPIES.items():
        add(uri, (ROOT / source).read_text(encoding="utf-8"))
    add("api/index.md", public_page())
    add(
        "api/root.md",
        f"# {', '.join(ROOT_MODULES)}\n\n" + "\n\n".join(f"::: eqprop.{m}" for m in ROOT_MODULES),
    )
    for folder, modules in folders().items():
        add(f"api/{folder}.md", api_page(folder, modules))
    for records in sorted(DOCS.glob("records*")):
        for folder in [records, *sorted(path for path in records.rglob("*") if path.is_dir())]:
            add(f"{folder.relative_to(DOCS).as_posix()}/index.md", record_page(folder))
    add("recipes.md", recipes_page())
    for notebook in DOCS.glob("*.ipynb"):
        page, images = notebook_page(notebook)
        add(f"{notebook.stem}.md", page)
        for name, image in images.items():
            add(name, image)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links as the repository has them into links of the site."""
    uri = page.file.src_uri
    sources = {shown: source for source, shown in COPIES.items()}
    folder = (ROOT / sources.get(uri, f"docs/{uri}")).parent

    def link(match: re.Match[str]) -> str:
        text, target = match.groups()
        path, hash_, anchor = target.partition("#")
        if not path or ":" in path:
            return match[0]
        shown = site_uri((folder / path).resolve())
        if shown is None:
            return text
        return f"[{text}]({posixpath.relpath(shown, posixpath.dirname(uri) or '.')}{hash_}{anchor})"

    return refer(re.sub(r"\[([^\]\n]*)\]\(([^)\s]+)\)", link, markdown))


def refer(markdown: str) -> str:
    """Links each `ep.Name` and `folder.module.name` to its place in the reference; a name that has
    none is a warning.
    """
    modules = "|".join(f"{folder}\\.{m}" for folder, names in folders().items() for m in names)
    known = re.compile(rf"(?<![\[`])`((ep|{modules})\.([A-Za-z_][\w.]*))`")
    homes = public_names()

    def link(match: re.Match[str]) -> str:
        shown, place, name = match.groups()
        if place != "ep":
            return f"[`{shown}`][eqprop.{shown}]"
        first = name.partition(".")[0]
        if first not in homes:
            raise PluginError(f"`{shown}` is no public name")
        return f"[`{shown}`][eqprop.{homes[first]}.{name}]"

    blocks = re.split(r"(^```.*?^```)", markdown, flags=re.DOTALL | re.MULTILINE)
    blocks[::2] = [known.sub(link, text) for text in blocks[::2]]
    return "".join(blocks)


def site_uri(path: Path) -> str | None:
    """Where the site has a file or folder of the repository; None where it does not show it."""
    name = path.relative_to(ROOT).as_posix()
    if name in COPIES:
        return COPIES[name]
    if not path.is_relative_to(DOCS):
        return None
    inside = path.relative_to(DOCS)
    if path.is_dir():
        inside /= "index.md"
    return (inside.with_suffix(".md") if path.suffix == ".ipynb" else inside).as_posix()


def folders() -> dict[str, list[str]]:
    """The folders of the package, in the order in which imports go up, with their modules.

    Raises ``PluginError`` where docs/architecture.md does not have a module in the section of its
    folder.
    """
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    layers = contracts["importlinter"]["contracts"][0]["layers"]
    names = [name for layer in reversed(layers) for name in layer.split(" | ")]
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    found: dict[str, list[str]] = {}
    for folder in (name for name in names if (ROOT / "eqprop" / name).is_dir()):
        section = re.search(rf"^### `{folder}/`\n(.*?)(?=^##)", text, re.DOTALL | re.MULTILINE)
        told = set(re.findall(r"`(\w+)\.py`", section[1] if section else ""))
        there = {path.stem for path in (ROOT / "eqprop" / folder).glob("[!_]*.py")}
        if told != there:
            raise PluginError(
                f"docs/architecture.md, {folder}/: has {sorted(told - there)} that are not there, "
                f"and lacks {sorted(there - told)}"
            )
        found[folder] = sorted(there)
    return found


def public_names() -> dict[str, str]:
    """The public names, with the module that each lives in, from the one list of them."""
    stub = (ROOT / "eqprop/__init__.pyi").read_text(encoding="utf-8")
    imports = re.findall(r"^from \.([\w.]+) import (\([^)]*\)|[^\n]*)", stub, re.MULTILINE)
    return {name: module for module, names in imports for name in re.findall(r"as (\w+)", names)}


def public_page() -> str:
    """The public names, each with a link."""
    names = [f"- [`ep.{name}`][eqprop.{home}.{name}]" for name, home in public_names().items()]
    about = (
        "`import eqprop as ep` offers these names, in the order in which the theory introduces "
        "them. The folders they live in are no API: their modules may change with any version."
    )
    return "\n".join(["# Public names", "", about, "", *names])


def api_page(folder: str, modules: list[str]) -> str:
    """The reference of a folder."""
    about = ast.get_docstring(ast.parse((ROOT / f"eqprop/{folder}/__init__.py").read_text()))
    entries = "\n\n".join(f"::: eqprop.{folder}.{name}" for name in modules)
    return f"# {folder}\n\n{about}\n\n{entries}\n"


def record_page(folder: Path) -> str:
    """The files of a record."""
    lines = [f"# {folder.relative_to(DOCS).as_posix()}", ""]
    for path in sorted(folder.iterdir()):
        link = f"{path.name}/index.md" if path.is_dir() else path.name
        lines.append(f"- [{path.name}]({link})")
    return "\n".join(lines)


def recipes_page() -> str:
    """The recipes as a table."""
    rows = [
        "# Recipes",
        "",
        "`eqprop train RECIPE` trains one; every setting is an option. Errors in % on MNIST, as "
        "published; what was run here is in [results.md](results.md).",
        "",
        "| recipe | what | T | K | beta | epochs | test | training |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, recipe in RECIPES.items():
        test, train = (error.removesuffix(" %") for error in errors(recipe.published))
        cells = (name, recipe.about, recipe.T, recipe.K, recipe.beta, recipe.epochs, test, train)
        rows.append(f"| {' | '.join(map(str, cells))} |")
    rows += ["", *(f"- `{name}`: {series.about}" for name, series in SERIES.items())]
    return "\n".join(rows)


def notebook_page(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as a page, and the images of its outputs by their place in the site."""
    images: dict[str, bytes] = {}
    parts: list[str] = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            parts += _output(output, notebook.stem, images)
    return "\n\n".join(parts), images


def _output(output: dict[str, Any], stem: str, images: dict[str, bytes]) -> Iterator[str]:
    data = output.get("data", {})
    if "image/png" in data:
        name = f"images/{stem}-{len(images) + 1}.png"
        images[name] = base64.b64decode(data["image/png"])
        yield f"![output]({name})"
    elif text := "".join(output.get("text", data.get("text/plain", ""))).rstrip():
        yield textwrap.indent(text, "    ")
