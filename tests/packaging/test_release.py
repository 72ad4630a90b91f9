"""What a release says: versions, changelogs and tags agree; README can be read where no files are beside it."""

import hashlib
import importlib.util
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def program(name: str) -> ModuleType:
    """Load a program of packaging/, a folder that has the name of a library and so cannot be imported from."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"packaging/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


pictures, release = program("pictures"), program("release")
PROJECT = re.compile(r"https://github\.com/[\w.-]+/iot-agent\b")


def tags() -> list[str]:
    done = subprocess.run(["git", "tag", "--list", "v*"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_versions_changelogs_and_tags_agree() -> None:
    assert release.disagreements(tags()) == []


def test_a_version_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert release.disagreements(["v9.9"]) == ["the tag v9.9 has no section in CHANGELOG.md"]
    monkeypatch.setattr(release, "version", lambda: "9.9")
    assert len(release.disagreements([])) == 2


def test_links_and_pictures_are_absolute_on_a_page_without_files() -> None:
    readme = "![p](docs/life.svg) [a](docs/a.md#b) [c](https://c.example) [d](#d)"
    assert release.absolute(readme, "https://x/y", "v1") == (
        "![p](https://x/y/raw/v1/docs/life.svg) [a](https://x/y/blob/v1/docs/a.md#b) [c](https://c.example) [d](#d)"
    )


def test_sdist_and_wheel_and_their_checksums(tmp_path: Path) -> None:
    release.make_files(ROOT / "build/env/uv/bin/uv", tmp_path)
    [wheel], [sdist] = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as files:
        metadata = files.read(next(name for name in files.namelist() if name.endswith("/METADATA"))).decode()
    description = metadata.partition("\n\n")[2]
    assert f"{release.url()}/raw/v{release.version()}/docs/life.svg" in description
    assert not re.search(r"\]\((?!https?:|#)", description)
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("iot_agent/main.py") for name in archive.getnames())
    lines = [line.split("  ") for line in (tmp_path / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in lines}
    assert sums[wheel.name] == hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert set(sums) == {wheel.name, sdist.name}


def test_the_address_of_the_project_is_set_in_one_place() -> None:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = {found for path in listed.split() for found in PROJECT.findall((ROOT / path).read_text())}
    assert named == {release.url()}


@pytest.mark.parametrize("path", pictures.pictures(), ids=lambda path: path.name)
def test_each_picture_is_what_the_script_draws(path: Path) -> None:
    assert path.read_text() == pictures.pictures()[path]


def test_readme_shows_each_picture() -> None:
    readme = (ROOT / "README.md").read_text()
    assert all(f"](docs/{path.name})" in readme for path in pictures.pictures())
