"""HTML pages that show data: values cannot become markup, and nothing is fetched from other hosts.

A browser enforces the content security policy of the page's meta tag. So even if a value is not escaped by mistake, the
browser does not run it.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from html import escape

_STYLE = (
    "body{font-family:sans-serif;margin:1em 2em;color:#222}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
    "figure{display:inline-block;margin:0 1em 0 0;width:30em;max-width:100%}img{width:100%}"
)
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
#: The head of a page ends before this.
_HEAD = "<head>"


def policy(scripts: Sequence[str] = ()) -> str:
    """A meta tag: only these inline `scripts` run, and nothing is fetched."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"
    rules = (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


def with_policy(page: str) -> str:
    """`page` with a policy that allows only the inline scripts that it has now."""
    return page.replace(_HEAD, f"{_HEAD}{policy(_SCRIPT.findall(page))}", 1)


def script_json(text: str) -> str:
    """JSON `text` for a script of a page: a string in it cannot end the script."""
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def page(title: str, parts: Iterable[str]) -> str:
    """A page without scripts. `title` is text, `parts` are HTML."""
    head = f'{_HEAD}{policy()}<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style></head>'
    return f"<!DOCTYPE html><html>{head}<body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    cells = [f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows]
    return f"<table><tr>{''.join(f'<th>{escape(text)}</th>' for text in head)}</tr>{''.join(cells)}</table>"
