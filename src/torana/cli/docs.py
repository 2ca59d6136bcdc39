"""`torana docs index`: Markdown documentation → the index that documentation search looks things up in."""

import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import click

from torana.search.build import NotAnIndex, build_index
from torana.search.pages import Page, read_page
from torana.search.release import read_release
from torana.setting_values import is_url

PUBLISHED_AT = "https://docs.gitlab.com"


@click.group()
def docs() -> None:
    """Documentation for the search endpoint."""


@docs.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--version", "version", required=True, metavar="X.Y", help="Version that the pages describe.")
@click.option("--out", required=True, metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--base-url", default=PUBLISHED_AT, show_default=True, help="Where the pages are published.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def index(folder: Path, version: str, out: Path, base_url: str, as_json: bool) -> None:
    """Index all Markdown below DIR as version X.Y.

    An existing FILE keeps its other versions; the same version is replaced. AIGW_DOCS_SEARCH__INDEX names FILE to
    the gateway, which takes a new FILE without a restart.
    """
    release = read_release(version)
    if release is None:
        raise click.BadParameter(f"{version!r} is no version; expected X.Y such as 18.6", param_hint="--version")
    if not is_url(base_url):
        raise click.BadParameter(f"{base_url!r} is no address; expected https://…", param_hint="--base-url")
    files = _find_pages(folder)
    if not files:
        _fail(f"{folder}: no Markdown files (*.md) below it")
    try:
        built = build_index(_read_pages(folder, _with_progress(files)), release, out, base_url)
    except NotAnIndex as error:
        _fail(f"{out}: {error}; name another file, or remove this one")
    except (OSError, sqlite3.Error) as error:
        _fail(f"{out}: cannot be written: {error}")
    held = [str(each) for each in built.releases]
    if as_json:
        counts = {"pages": built.pages, "sections": built.sections}
        click.echo(json.dumps({"file": str(out), "version": str(release), **counts, "versions": held}))
        return
    click.echo(f"{release}: {built.pages} pages, {built.sections} sections")
    click.echo(f"{out} holds {', '.join(held)}")


def _find_pages(folder: Path) -> list[Path]:
    """In order; nothing that is hidden."""
    found = (path for path in folder.rglob("*.md") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _read_pages(folder: Path, files: Iterable[Path]) -> Iterator[Page]:
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            _fail(f"{file}: cannot be read: {error.strerror}")
        page = read_page(file.relative_to(folder).as_posix(), content)
        if page is not None:
            yield page


def _with_progress(files: list[Path]) -> Iterator[Path]:
    """A bar on stderr for people who watch; scripts see nothing of it."""
    if not sys.stderr.isatty():
        yield from files
        return
    with click.progressbar(files, label="indexing", file=sys.stderr) as bar:
        yield from bar


def _fail(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(1)
