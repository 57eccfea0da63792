"""Pages of the site that are written elsewhere, as a hook of mkdocs.

README, change log, contributing and benchmarks from the root of the repository; the tutorial from
its notebook; a list of files for each record; the recipes; and the API reference, a page for each
row of the table of modules in architecture.md.
"""

import base64
import json
import posixpath
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from eqprop.cli.list import errors
from eqprop.recipes.catalogue import RECIPES, SERIES

DOCS = Path(__file__).parent
ROOT = DOCS.parent
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
    config.nav.append({"API": [{", ".join(names): api_uri(names)} for names, _ in module_groups()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds all pages that are not files in docs/."""

    def add(uri: str, content: str | bytes) -> None:
        files.append(File.generated(config, uri, content=content))

    for source, uri in COPIES.items():
        add(uri, (ROOT / source).read_text(encoding="utf-8"))
    for names, about in module_groups():
        add(api_uri(names), api_page(names, about))
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
    """Links each `module.name` to its place in the reference; a name that has none is a warning."""
    modules = "|".join(module for names, _ in module_groups() for module in names)
    name = re.compile(rf"(?<![\[`])`((?:{modules})\.(?!(?:py|png|json|npz)`)[A-Za-z_][\w.]*)`")
    blocks = re.split(r"(^```.*?^```)", markdown, flags=re.DOTALL | re.MULTILINE)
    blocks[::2] = [name.sub(r"[`\1`][eqprop.\1]", text) for text in blocks[::2]]
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


def module_groups() -> Iterator[tuple[list[str], str]]:
    """Modules and what they hold, a row of architecture.md at a time."""
    known: set[str] = set()
    for line in (DOCS / "architecture.md").read_text(encoding="utf-8").splitlines():
        if not re.match(r"\| `\w+\*?\.py`", line):
            continue
        files, about = line.strip("| ").split(" | ", 1)
        names = [
            path.stem
            for pattern in re.findall(r"`([\w*]+\.py)`", files)
            for path in sorted((ROOT / "eqprop").glob(pattern))
            if path.stem not in known
        ]
        known.update(names)
        if names:
            yield names, about
    modules = {path.stem for path in (ROOT / "eqprop").glob("*.py")} - {"__init__"}
    if missing := sorted(modules - known):
        raise PluginError(f"no row of docs/architecture.md has {', '.join(missing)}")


def api_uri(names: list[str]) -> str:
    """Where the reference of some modules is."""
    return f"api/{names[0]}.md"


def api_page(names: list[str], about: str) -> str:
    """The reference of some modules."""
    heading = ", ".join(names)
    modules = "\n\n".join(f"::: eqprop.{name}" for name in names)
    return f"# {heading}\n\n{about[0].upper()}{about[1:]}.\n\n{modules}\n"


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
