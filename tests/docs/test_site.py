"""The site builds without a warning; every link, anchor and picture in it leads somewhere, and it asks no network for anything."""

import os
import re
import subprocess
import sys
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: What a page may not fetch: these attributes load, an `a` only leads.
LOADS = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


class Page(HTMLParser):
    """Links, what is loaded, and anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.anchors, self.pictures_without_words = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[k] for k in ("id", "name") if values.get(k)}
        if tag == "a" and values.get("href") is not None:
            self.links.append(values["href"])
        if tag in LOADS and values.get(LOADS[tag]) and values.get("rel") != "canonical":
            self.loads.append(values[LOADS[tag]])
        if tag == "img" and not values.get("alt", "").strip():
            self.pictures_without_words.append(values.get("src"))


@pytest.fixture(scope="session")
def site(made_once):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")

    def build(folder):
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder / "site")]
        done = subprocess.run(
            command,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return made_once("site", build) / "site"


@pytest.fixture(scope="session")
def pages(site):
    return {p: Page(p.read_text(encoding="utf-8")) for p in site.rglob("*.html")}


def broken(page, link, site, anchors):
    """Say what is wrong with an internal link, or nothing."""
    parts = urlsplit(link)
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target = target / "index.html"
    if not target.is_relative_to(site.resolve()) and target != page:
        return "it leads out of the site"
    if not target.exists():
        return "nothing is there"
    if parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in anchors(target):
        return "the page has no such anchor"
    return ""


def test_every_internal_link_picture_and_anchor_leads_somewhere(site, pages):
    by_path = {p.resolve(): page for p, page in pages.items()}
    anchors = lru_cache(None)(lambda path: by_path[path.resolve()].anchors)
    wrong = [
        (page.name, link, reason)
        for page, found in pages.items()
        if page.name != "404.html"  # its links are those of the site's root on a server
        for link in (*found.links, *found.loads)
        if not urlsplit(link).scheme and not link.startswith("//")
        if (reason := broken(page, link, site, anchors))
    ]
    assert wrong == []


def test_a_broken_link_would_be_noticed(tmp_path):
    page = tmp_path / "a.html"
    page.write_text('<h1 id="top">a</h1><a href="b.html">b</a><a href="#nowhere">c</a>', encoding="utf-8")
    found = Page(page.read_text(encoding="utf-8"))
    assert [broken(page, link, tmp_path, lambda _: found.anchors) for link in found.links] == [
        "nothing is there",
        "the page has no such anchor",
    ]
    assert broken(page, "../secret.txt", tmp_path, lambda _: set()) == "it leads out of the site"


def test_nothing_is_loaded_from_elsewhere(site, pages):
    assert [
        (p.name, u) for p, page in pages.items() for u in page.loads if urlsplit(u).scheme or u.startswith("//")
    ] == []
    fetched = re.compile(r"@import\s+[\"']?(?:https?:)?//|url\([\"']?(?:https?:)?//")
    assert [p.name for p in site.rglob("*.css") if fetched.search(p.read_text(encoding="utf-8"))] == []


def test_outside_addresses_are_well_formed(pages):
    outside = {link for page in pages.values() for link in page.links if urlsplit(link).scheme}
    assert {urlsplit(link).scheme for link in outside} <= {"http", "https", "mailto"}
    assert [
        link for link in outside if urlsplit(link).scheme != "mailto" and "." not in (urlsplit(link).hostname or "")
    ] == []


def test_pictures_say_in_words_what_they_show(pages):
    assert [(p.name, src) for p, page in pages.items() for src in page.pictures_without_words] == []


def test_every_public_name_is_described(site, pages):
    import evbiodist

    anchors = next(page.anchors for path, page in pages.items() if path.name == "api.html")
    described = {anchor.rpartition(".")[2] for anchor in anchors}
    assert set(evbiodist.__all__) <= described


def test_every_page_is_in_the_site(site):
    left_out = {"crossval_coverage"}  # a part of crossval.md
    written = {p.relative_to(ROOT / "docs").with_suffix("") for p in (ROOT / "docs").rglob("*.md")}
    assert {p for p in written if p.name not in left_out and not (site / p.with_suffix(".html")).exists()} == set()
