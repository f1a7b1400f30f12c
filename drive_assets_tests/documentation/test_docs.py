"""The documentation: links lead somewhere, what is generated is current, what it quotes is what the code says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from drive_assets_tests.browser.walk import MOST_BYTES
from drive_assets_tests.documentation.reference import PAGE, reference

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
SOURCE = {path: path.read_text() for package in ("drive_assets", "model") for path in (ROOT / package).rglob("*.py")}
CODE = re.compile(r"```.*?```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Of its headings, as mkdocs and code hosts make them."""
    heads = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_page_is_in_the_navigation_and_every_picture_is_shown_and_small() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} == set(re.findall(r"[\w/-]+\.md", navigation))
    shown = {Path(link).name for page in PAGES for link in LINK.findall(page.read_text()) if link.endswith(".png")}
    pictures = {path.name: path.stat().st_size for path in (DOCS / "images").iterdir()}
    assert set(pictures) == shown
    assert {name: size for name, size in pictures.items() if size > MOST_BYTES} == {}


def test_the_configuration_reference_is_current() -> None:
    assert PAGE.read_text() == reference(), "the config classes changed: run `make docs`"


def test_each_error_of_the_troubleshooting_is_one_that_the_code_says() -> None:
    """Of a row's first cell, what stands in code quotes."""
    source = re.sub(r'"\s*\n\s*f?"', "", "\n".join(SOURCE.values()))  # texts over several lines
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    quoted = [words for row in rows for words in re.findall(r"`([^`]+)`", row)]
    assert len(quoted) > 20
    assert [words for words in quoted if words not in source] == []


def test_the_settings_name_every_variable_that_the_code_reads() -> None:
    names = {name for text in SOURCE.values() for name in re.findall(r"DRIVE_ASSETS_[A-Z_]*[A-Z]", text)}
    assert names - {"DRIVE_ASSETS_WORKER", "DRIVE_ASSETS_JOB_LOCK"} == set(
        re.findall(r"DRIVE_ASSETS_[A-Z_]*[A-Z]", (DOCS / "settings.md").read_text())
    )


def test_the_site_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    assert (tmp_path / "site" / "index.html").is_file()
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text())["theme"]["font"] is False
