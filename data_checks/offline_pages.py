"""Great Expectations' pages, readable without a network: nothing is loaded from elsewhere, no script runs.

Its pages ask eight servers for styles and scripts, and one for a logo whose address holds an id of the project. Without them the
index is empty, as a script fills its tables; so the index gets a plain list of the pages.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

_ELSEWHERE = re.compile(
    r"<script\b.*?</script>"
    r"|<link\b[^>]*href=[\"']https?:[^>]*>"
    r"|<img\b[^>]*src=[\"']https?:[^>]*>"
    r"|<iframe\b.*?</iframe>",
    re.DOTALL | re.IGNORECASE,
)
_ADDRESS = re.compile(r"url\([\"']?https?:[^)]*\)", re.IGNORECASE)
_STYLE = """<style>
body { font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; margin: 0 auto; max-width: 1100px; padding: 16px; }
table { border-collapse: collapse; } th, td { border: 1px solid #d1d9e0; padding: 4px 8px; text-align: left; vertical-align: top; }
.btn-group-toggle, .modal, .ge-walkthrough-modal, footer, button, .card-header + .card-body .btn-group { display: none; }
.alert-success, .text-success { color: #1a7f37; } .alert-danger, .text-danger { color: #cf222e; } .float-left { float: none; }
</style>
"""


def make_readable_offline(docs: Path) -> None:
    """Rewrites every page below ``docs`` in place; ``docs/index.html`` links to all others."""
    pages = sorted(docs.rglob("*.html"))
    for page in pages:
        text = _ADDRESS.sub("none", _ELSEWHERE.sub("", page.read_text(encoding="utf-8")))
        text = text.replace("</head>", f"{_STYLE}</head>", 1)
        if page == docs / "index.html":
            text = text.replace("</body>", f"{_links(docs, pages)}</body>", 1)
        page.write_text(text, encoding="utf-8")


def _links(docs: Path, pages: list[Path]) -> str:
    """What was judged, then what was asked; an address is the page's place below the index."""
    found = []
    for title, folder in (("What was found", "validations"), ("What is asked of the rows", "expectations")):
        places = [page.relative_to(docs).as_posix() for page in pages if page.is_relative_to(docs / folder)]
        lines = [f'<li><a href="{html.escape(place)}">{html.escape(place)}</a></li>' for place in places]
        found.append(f"<h2>{title}</h2>\n<ul>\n" + "\n".join(lines) + "\n</ul>\n")
    return "".join(found)
