"""Makes what a release consists of, in dist/. `make release` runs it after the packages are built.

    python packaging/release.py check            VERSION, CHANGELOG, the package's changelog and the tags agree
    python packaging/release.py files UV OUT     sdist and wheel, the SBOM, and SHA256SUMS over all files in OUT

A page on PyPI has no files beside it, so README's relative links and pictures are made absolute in the sdist and the
wheel: they lead to the project's URL (`url` in setup.cfg) at the tag of the release. `make fork` sets URL and contact.
"""

# ruff: noqa: INP001 - a program, not part of a package

import configparser
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PICTURES = (".svg", ".png")


def version() -> str:
    """Give the version of the checkout."""
    return _find(r'^__version__ = "(.+)"$', "iot_agent/__init__.py")[0]


def url() -> str:
    """Give the address of the project."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return setup["metadata"]["url"]


def disagreements(tags: list[str]) -> list[str]:
    """Say where version, changelogs and tags (`v0.1.0`) say different things."""
    ours, released = version(), _find(r"^## (\d[\w.]*)", "CHANGELOG.md")
    packaged = _find(r"^iot-agent \((.+?)\)", "packaging/debian/changelog")
    found = [f"the tag {tag} has no section in CHANGELOG.md" for tag in tags if tag.removeprefix("v") not in released]
    if released[:1] != [ours]:
        found.append(f"the newest version in CHANGELOG.md is {released[:1]}, not {ours}")
    if packaged[:1] != [ours]:
        found.append(f"the newest version in packaging/debian/changelog is {packaged[:1]}, not {ours}")
    return found


def absolute(readme: str, project: str, tag: str) -> str:
    """Make relative links and pictures of a Markdown text absolute."""

    def link(match: re.Match[str]) -> str:
        opening, target = match.groups()
        path, _, _ = target.partition("#")
        kind = "raw" if path.endswith(PICTURES) else "blob"
        return f"{opening}({project}/{kind}/{tag}/{target})"

    return re.sub(r"(!?\[[^\]]*\])\((?!https?:|#)([^)]+)\)", link, readme)


def make_files(uv: Path, out: Path) -> None:
    """Build sdist and wheel of what is committed; then the SBOM of the package and the checksums."""
    ours = version()
    for old in (*out.glob("iot_agent-*"), *out.glob("*.cdx.json"), *out.glob("SHA256SUMS")):
        old.unlink()
    with tempfile.TemporaryDirectory() as name:
        source = Path(name)
        archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout  # noqa: S607
        subprocess.run(["tar", "--extract", "--directory", name], input=archive, check=True)  # noqa: S603, S607
        readme = source / "README.md"
        readme.write_text(absolute(readme.read_text(), url(), f"v{ours}"))
        locks = source / "packaging/locks/build.txt"
        build: list[str | Path] = [
            uv,
            "build",
            "--quiet",
            "--build-constraints",
            locks,
            "--require-hashes",
            "--out-dir",
            out,
            source,
        ]
        subprocess.run(build, check=True)  # noqa: S603 - our own uv
        for package in sorted(out.glob(f"iot-agent_{ours}_*.deb")):
            subprocess.run(["dpkg-deb", "--extract", package, source / package.stem], check=True)  # noqa: S603, S607
            bom = source / package.stem / "usr/share/doc/iot-agent/sbom.cdx.json"
            shutil.copyfile(bom, out / f"{package.stem}.cdx.json")
    (out / ".gitignore").unlink(missing_ok=True)
    files = sorted(path for path in out.iterdir() if ours in path.name)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (out / "SHA256SUMS").write_text("".join(sums))


def main(arguments: list[str]) -> int:
    """Run one command."""
    if arguments == ["check"]:
        done = subprocess.run(["git", "tag", "--list", "v*"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607
        found = disagreements(done.stdout.split())
        sys.stderr.writelines(f"release: {line}\n" for line in found)
        return 1 if found else 0
    _, uv, out = arguments
    make_files(Path(uv).absolute(), Path(out).absolute())
    sys.stdout.write((Path(out) / "SHA256SUMS").read_text())
    return 0


def _find(pattern: str, path: str) -> list[str]:
    return re.findall(pattern, (ROOT / path).read_text(), re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
