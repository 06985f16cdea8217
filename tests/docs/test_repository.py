"""Links lead somewhere, and no file speaks of one machine or one host."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

#: places of one machine, hosts of registries, files outside of the repository; written so that this file does not match
_NOWHERE = re.compile(
    r"(?<![\w.~/-])/(?:root|home|tmp|work|Users|mnt|opt|data)/[\w.]"
    r"|\.\./+shared\b"
    r"|\b(?:pypi|pythonhosted|anaconda)\.org\b"
    r"|\b(?:download\.pytorch\.org|huggingface\.co|test\.pypi)\b"
)


def _anchors(page: Path) -> set[str]:
    """The names of a page's headings, as they are made of their text."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def _broken(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    links = [link for link in found if not re.match(r"[a-z]+:", link)]
    broken = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(f"{page.name}: {link}")
    return broken


def test_relative_links_resolve(pages: list[Path]) -> None:
    assert [link for page in pages for link in _broken(page)] == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A heading\n[a](page.md) [b](#a-heading) [c](none.md) [d](#none) [e](https://example.org)\n")
    assert _broken(page) == ["page.md: none.md", "page.md: #none"]


def test_no_page_is_left_out(root: Path, pages: list[Path]) -> None:
    linked = "".join(page.read_text(encoding="utf-8") for page in [root / "README.md", *(root / "docs").glob("*.md")])
    stages = [page.name for page in (root / "docs").glob("*.md")]
    assert [name for name in stages if f"{name})" not in linked and f"{name}#" not in linked] == []


def test_no_file_names_a_machine_or_a_host(root: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a checkout")
    files = [root / name for name in listed.stdout.splitlines() if name != "tests/docs/test_repository.py"]
    found = []
    for file in files:
        if file.is_file():
            text = file.read_bytes().decode("utf-8", errors="replace")
            found += [f"{file.relative_to(root)}: {match[0]}" for match in _NOWHERE.finditer(text)]
    assert found == []


@pytest.mark.parametrize(
    "text", ["/" + "home/x", "see /" + "work/main", "../" + "shared/a", "pypi" + ".org/simple", '"/' + 'tmp/a"']
)
def test_the_pattern_finds_them(text: str) -> None:
    assert _NOWHERE.search(text)


@pytest.mark.parametrize("text", ["runs/" + "home/x", "a/" + "tmp/b", "~/x", "example.org", "data/rows.py", "text/wo" + "rk/"])
def test_the_pattern_leaves_others_alone(text: str) -> None:
    assert not _NOWHERE.search(text)
