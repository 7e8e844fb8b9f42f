"""HTML fragments of the page; text is escaped."""

from collections.abc import Iterable, Sequence
from html import escape

from serve_app.errors import ServeAppError
from serve_app.ui.service import headline_of


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def failure(error: ServeAppError) -> str:
    return f'<div class="failure" role="alert"><b>{headline_of(error)}</b><p>{escape(error.message)}</p></div>'


def figures(pairs: Iterable[tuple[str, str]]) -> str:
    """A row of numbers, each above its name."""
    cells = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in pairs)
    return f'<div class="figures">{cells}</div>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML, and not escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<table class="rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def badge(text: str, good: bool) -> str:
    return f'<span class="badge {"good" if good else "poor"}">{escape(text)}</span>'


def section(title: str, content: str) -> str:
    return f"<section><h3>{escape(title)}</h3>{content}</section>"
