"""For mkdocs: adds pages outside docs/ that are linked from docs/ to the site.

Links are written as they work in the repository.  These hooks rewrite links between docs/ and the other pages to
their location on the site; mkdocs then reports dead links.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?://|#)([^)\s#]+)(#[^)\s]*)?\)")
ELSEWHERE = "repository/"  # folder of the site for pages from outside docs/


def _repository_path(site: str) -> str:
    """Path in the repository of a page of the site."""
    return site.removeprefix(ELSEWHERE) if site.startswith(ELSEWHERE) else f"docs/{site}"


def _target(page: str, link: str) -> str:
    """The file in the repository that ``link`` on the page ``page`` points to; for a folder, its README."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    return f"{path}/README.md" if (ROOT / path / "README.md").exists() else path


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add all pages that can be reached by links."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        for _, _, link, _ in LINK.findall((ROOT / page).read_text(encoding="utf-8")):
            target = _target(page, link)
            if target in seen or target.startswith("docs/") or not target.endswith(".md"):
                continue
            if (ROOT / target).is_file():  # a dead link is left for mkdocs to report
                seen.add(target)
                waiting.append(target)
                content = (ROOT / target).read_text(encoding="utf-8")
                files.append(File.generated(config, ELSEWHERE + target, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page; links to files that are not part of the site (the license) become plain text."""
    here = page.file.src_uri

    def turned(match: re.Match[str]) -> str:
        mark, text, link, anchor = match.groups()
        target = _target(_repository_path(here), link)
        site = target.removeprefix("docs/") if target.startswith("docs/") else ELSEWHERE + target
        if files.get_file_from_path(site) is None and (ROOT / target).exists():
            return text
        return f"{mark}[{text}]({posixpath.relpath(site, posixpath.dirname(here) or '.')}{anchor or ''})"

    return LINK.sub(turned, markdown)
