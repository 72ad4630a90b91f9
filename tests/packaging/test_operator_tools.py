"""The operator's tools, installed from a wheel into an environment of their own: no checkout is near."""

import os
import subprocess
from pathlib import Path

import pytest

from iot_agent import __version__

ROOT = Path(__file__).parents[2]
UV = ROOT / "build/env/uv/bin/uv"
BUILD = ROOT / "packaging/locks/build.txt"
SOURCES = ["iot_agent", "cloud", "README.md", "LICENSE", "setup.cfg", "pyproject.toml"]


def run(*words: str | Path, **environment: str) -> str:
    place = {"HOME": environment["HOME"]} if "HOME" in environment else {}
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd="/", env={**os.environ, **place, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel of what git would give, in a place of its own."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SOURCES],
        cwd=ROOT, check=True, capture_output=True,
    ).stdout  # fmt: skip
    packed = subprocess.run(
        ["tar", "--create", "--null", "--files-from=-"], cwd=ROOT, input=listed, check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "--extract", "--directory", source], input=packed, check=True)
    run(UV, "build", "--quiet", "--wheel", "--build-constraints", BUILD, "--out-dir", place, source)
    (made,) = place.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install it with the pinned packages of the operator's environment; return the directory of its programs."""
    place = tmp_path_factory.mktemp("venv")
    run(UV, "venv", "--quiet", place)
    run(UV, "pip", "install", "--quiet", "--python", place, "--no-deps", "-r", ROOT / "packaging/locks/cloud.txt")
    run(UV, "pip", "install", "--quiet", "--python", place, "--no-deps", wheel)
    return place / "bin"


def test_the_tools_run_without_a_checkout_and_know_their_version(installed: Path) -> None:
    assert run(installed / "iot-fleet", "--version") == f"iot-fleet {__version__}\n"
    assert run(installed / "iot-agent-cloud", "--version") == f"iot-agent-cloud {__version__}\n"
    assert "iot-fleet remove SN-0001" in run(installed / "iot-fleet", "--help")
    assert "usage: iot-agent-cloud" in run(installed / "iot-agent-cloud", "deploy", "--help")


def test_the_extra_names_what_the_tools_need(wheel: Path) -> None:
    metadata = run("unzip", "-p", wheel, "*/METADATA")
    assert 'Requires-Dist: boto3>=1.44; extra == "cloud"' in metadata


def test_the_template_and_the_lambdas_sources_are_installed_too_and_nothing_of_the_tests(installed: Path) -> None:
    code = (
        "from cloud.setup import stack\n"
        "assert not stack.CHECKOUT\n"
        "print(stack.TEMPLATE.is_file(), *sorted(path.name for path in stack._sources()))\n"
        "print(stack.BUILDS)"
    )
    told, builds = run(installed / "python", "-P", "-c", code, HOME="/somebody").splitlines()
    there, *names = told.split()
    ours = {path.name for path in (ROOT / "cloud/rotation").iterdir() if path.suffix in (".py", ".txt")}
    assert there == "True"
    assert set(names) == {"template.yaml", "Makefile", *ours}
    assert builds == "/somebody/.cache/iot-agent-cloud/builds"
    site = next((installed.parent / "lib").glob("python*/site-packages"))
    assert not (site / "tests").exists()
    assert not (site / "cloud/local").exists()
