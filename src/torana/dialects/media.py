"""Images and documents between formats: data URLs, names of files, documents as text."""

import base64
import binascii
import re

from torana.chat import Document, Image

_data_url = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[^,;]+)*?;base64,", re.ASCII)
MAX_HEAD_CHARS = 1_000
"""Of a data URL, before its data; parameters without an end would be read with memory for each of them."""

_TYPES = {
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
_ALIASES = {"image/jpg": "image/jpeg"}
"""What clients write, and only some vendors take."""
_ENDINGS = {media_type: ending for ending, media_type in _TYPES.items()}
_PDF = "application/pdf"


def read_data_url(url: str) -> tuple[str, str] | None:
    """Media type, maybe empty, and base64; None for a URL of any other kind."""
    found = _data_url.match(url, 0, MAX_HEAD_CHARS)
    return (found[1] or "", url[found.end() :]) if found else None


def write_data_url(media_type: str, data: str) -> str:
    return f"data:{media_type};base64,{data}"


def read_image(url: str, detail: object = None, *, cached: bool = False) -> Image:
    """An image of the formats that give its bytes as a URL too; `auto` is what they do without a detail."""
    asked = detail if isinstance(detail, str) and detail != "auto" else ""
    inline = read_data_url(url)
    if inline is None:
        return Image(url=url, cached=cached, detail=asked)
    media_type, data = inline
    return Image(_ALIASES.get(media_type, media_type), data, cached=cached, detail=asked)


def image_url(image: Image) -> str:
    # OpenAI takes a PNG for what names no type.
    return write_data_url(image.media_type or "image/png", image.data) if image.data else image.url


def note_detail(image: Image, lost: set[str]) -> None:
    """For formats that cannot be told how closely to look."""
    if image.detail:
        lost.add("image.detail")


def read_file(data: str, name: str, *, cached: bool = False) -> Document:
    """A document given as a data URL, or as base64 alone, where its name tells its type."""
    inline = read_data_url(data)
    media_type, data = ("", data) if inline is None else inline
    media_type = media_type or _TYPES.get(name.rpartition(".")[2].lower(), _PDF)
    return Document(media_type=media_type, data=data, title=name, cached=cached)


def file_name(document: Document) -> str:
    """OpenAI wants a name beside the bytes, and goes by its ending."""
    name, ending = document.title or "document", _ENDINGS.get(document.media_type, "pdf" if not document.title else "")
    return name if not ending or name.lower().endswith(f".{ending}") else f"{name}.{ending}"


def tell_document(title: str, text: str) -> str:
    """A document of text, for formats that know no such thing."""
    return f"{title}\n\n{text}" if title else text


def text_of(document: Document) -> str | None:
    """The document as text, where it is one, however it came."""
    if document.text or not document.data:
        return document.text or None
    if not document.media_type.startswith("text/") and document.media_type != "application/json":
        return None
    try:
        return base64.b64decode(document.data, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
