"""Values of data that would do harm in a page that does not escape them, and what a page that does escape them is."""

import base64
import hashlib
from html.parser import HTMLParser

SCRIPT, IMAGE = "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>'
ATTACKS = (
    SCRIPT,
    IMAGE,
    "</script><script>alert(3)</script>",
    "<!--<script>",
    "'-alert(4)-' onmouseover=alert(5) \u2028 &lt;b&gt;",
    "<b>" * 5_000,
)


class _Page(HTMLParser):
    """What a browser finds in a page."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


def assert_safe(text: str, scripts: int = 0) -> None:
    """The page has so many scripts, all in its policy, no handlers, and no address of another host."""
    page = _Page()
    page.feed(text)
    policies = [
        attributes["content"] or ""
        for tag, attributes in page.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert "default-src 'none'" in policies[0]
    assert "script-src 'unsafe" not in policies[0]
    assert len(page.scripts) == scripts
    for script in page.scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policies[0]
    for tag, attributes in page.tags:
        assert tag not in ("img", "iframe", "object", "embed", "b"), tag
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            assert not (attributes.get(name) or "").startswith(("http", "//")), attributes
