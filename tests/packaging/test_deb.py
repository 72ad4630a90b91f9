"""The Debian package, looked at without installing it: what is in it, that it is clean, and can be built again."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import iot_agent
from iot_agent import agentctl, main
from iot_agent.config import agent_yaml
from iot_agent.core import journal_events

ROOT = Path(__file__).parents[2]
ELF_MACHINES = {"amd64": b"\x3e\x00", "arm64": b"\xb7\x00"}  # e_machine, elf(5)


def run(*command: str | Path, **environment: str) -> str:
    """Run a command; give what it said, and fail with it when it fails."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("deb")
    run("dpkg-deb", "--raw-extract", package, directory)
    return directory


def site(unpacked: Path) -> Path:
    (found,) = unpacked.glob("usr/lib/iot-agent/lib/python3.*/site-packages")
    return found


def _digest(file: Path) -> str:
    """Of megabytes pytest would show the difference for minutes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_another_build_elsewhere_in_another_time_zone_is_the_same_bytes(package: Path, tmp_path: Path) -> None:
    run(ROOT / "packaging/build-deb.sh", tmp_path / "work", tmp_path / "out", TZ="Asia/Kathmandu", LANG="C")
    (again,) = (tmp_path / "out").glob("*.deb")
    assert _digest(again) == _digest(package), "diffoscope tells the difference"


def test_it_is_built_for_another_machine_too(tmp_path: Path) -> None:
    other = {"amd64": "arm64", "arm64": "amd64"}[run("dpkg", "--print-architecture").strip()]
    run(ROOT / "packaging/build-deb.sh", tmp_path / "work", tmp_path / "out", other)
    (built,) = (tmp_path / "out").glob(f"*_{other}.deb")
    run("dpkg-deb", "--extract", built, tmp_path / "there")
    machines = {path.read_bytes()[18:20] for path in (tmp_path / "there").rglob("*.so")}
    assert machines == {ELF_MACHINES[other]}
    assert "libc6 (>= 2.34)" in run("dpkg-deb", "--field", built, "Depends")


def test_lintian_finds_nothing(package: Path) -> None:
    run("lintian", "--allow-root", "--fail-on", "error,warning,info", package.with_suffix(".changes"))


def test_everything_that_belongs_to_it_is_in_it(unpacked: Path) -> None:
    for path in (
        "lib/systemd/system/iot-agent.service", "usr/lib/sysusers.d/iot-agent.conf",
        "usr/lib/tmpfiles.d/iot-agent.conf", "usr/lib/systemd/catalog/iot-agent.catalog",
        "etc/iot-agent/agent.yaml", "usr/bin/iot-agent", "usr/bin/agentctl",
        "usr/share/man/man8/iot-agent.8.gz", "usr/share/man/man1/agentctl.1.gz", "usr/share/man/man5/agent.yaml.5.gz",
        "usr/share/bash-completion/completions/agentctl", "usr/share/zsh/vendor-completions/_agentctl",
        "usr/share/fish/vendor_completions.d/agentctl.fish", "usr/share/doc/iot-agent/changelog.gz",
        "usr/share/doc/iot-agent/sbom.cdx.json", "usr/share/doc/iot-agent/examples/iot-agent.service.d/tpm.conf",
        "usr/share/doc/iot-agent/examples/monitoring/iot-agent.rules.yml", "usr/share/doc/iot-agent/README.md",
        "usr/share/doc/iot-agent/examples/applications/app_paho.py",
    ):  # fmt: skip
        assert (unpacked / path).is_file(), path
    assert (unpacked / "DEBIAN/conffiles").read_text() == "/etc/iot-agent/agent.yaml\n"


def test_the_documents_that_its_texts_name_are_in_it(unpacked: Path) -> None:
    """Man pages, help, messages and agent.yaml name docs/…, and say that it is below /usr/share/doc/iot-agent."""
    there = unpacked / "usr/share/doc/iot-agent"
    texts = [unpacked / "etc/iot-agent/agent.yaml", *there.rglob("*.conf"), *site(unpacked).glob("iot_agent/**/*.py")]
    pages = [page(unpacked, name) for name in ("man8/iot-agent.8", "man1/agentctl.1", "man5/agent.yaml.5")]
    named = {name for text in [*map(Path.read_text, texts), *pages] for name in re.findall(r"docs/[\w-]+\.md", text)}
    assert {"docs/tokens.md", "docs/status.md", "docs/doctor.md", "docs/applications.md"} <= named
    assert [name for name in named if not (there / name).is_file()] == []
    assert all("/usr/share/doc/iot-agent" in text for text in pages)


def test_its_version_is_the_agent_s(package: Path) -> None:
    assert run("dpkg-deb", "--field", package, "Version").strip() == iot_agent.__version__


def test_it_asks_for_exactly_the_python_that_its_libraries_were_built_for(package: Path, unpacked: Path) -> None:
    major, minor = re.findall(r"python(\d+)\.(\d+)", str(site(unpacked)))[0]
    depends = run("dpkg-deb", "--field", package, "Depends")
    assert f"python3 (>= {major}.{minor}), python3 (<< {major}.{int(minor) + 1})" in depends


def test_every_module_comes_with_bytecode_that_is_never_checked_against_a_clock(unpacked: Path) -> None:
    sources = list(site(unpacked).rglob("*.py"))
    assert len(sources) > 100
    for source in sources:
        (compiled,) = (source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc")
        flags = int.from_bytes(compiled.read_bytes()[4:8], "little")
        assert flags == 0b01, compiled  # PEP 552: by hash, unchecked


def test_nothing_in_it_knows_where_it_was_built(unpacked: Path) -> None:
    texts = [path for path in unpacked.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [path for path in texts if str(ROOT).encode() in path.read_bytes()] == []


def _pins(locks: str) -> list[tuple[str, str]]:
    return re.findall(r"^(\S+?)==(\S+)", locks, re.MULTILINE)


def test_its_libraries_are_those_that_are_pinned_and_the_sbom_lists_them(unpacked: Path) -> None:
    locks = (ROOT / "packaging/locks/agent.txt").read_text()
    pinned = {(name.replace("_", "-").lower(), version) for name, version in _pins(locks)}
    sbom = json.loads((unpacked / "usr/share/doc/iot-agent/sbom.cdx.json").read_text())
    assert (sbom["bomFormat"], sbom["metadata"]["component"]["name"]) == ("CycloneDX", "iot-agent")
    assert sbom["metadata"]["component"]["version"] == iot_agent.__version__
    listed = {(part["name"].lower(), part["version"]) for part in sbom["components"]}
    assert listed == pinned
    there = {tuple(path.name.removesuffix(".dist-info").rsplit("-", 1)) for path in site(unpacked).glob("*.dist-info")}
    assert {(name.replace("_", "-").lower(), version) for name, version in there} - pinned == {
        ("iot-agent", iot_agent.__version__)
    }
    assert all(part["licenses"] for part in sbom["components"])


def test_the_configuration_it_installs_sets_nothing_and_becomes_the_example_when_uncommented(unpacked: Path) -> None:
    lines = (unpacked / "etc/iot-agent/agent.yaml").read_text().splitlines()
    assert all(not line or line.lstrip().startswith("#") for line in lines)
    for line, example in zip(lines, (ROOT / "config/agent.yaml").read_text().splitlines(), strict=True):
        assert line in (example, f"#{example}")


@pytest.mark.parametrize("page", ["man8/iot-agent.8", "man1/agentctl.1", "man5/agent.yaml.5"])
def test_its_pages_are_good_roff(unpacked: Path, page: str) -> None:
    path = unpacked / f"usr/share/man/{page}.gz"
    warned = subprocess.run(
        ["man", "--warnings", "--local-file", "--pager=cat", path],
        capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert warned.stderr == ""
    assert len(warned.stdout.splitlines()) > 30


def page(unpacked: Path, name: str) -> str:
    path = unpacked / f"usr/share/man/{name}.gz"
    return run("man", "--local-file", "--pager=cat", path, MANWIDTH="1000", LC_ALL="C.UTF-8", MAN_KEEP_FORMATTING="")


def test_the_pages_name_every_option_command_exit_status_and_key(unpacked: Path) -> None:
    for program, name in ((main, "man8/iot-agent.8"), (agentctl, "man1/agentctl.1")):
        text = page(unpacked, name)
        shown = run(sys.executable, "-m", program.__name__, "--help")
        for option in re.findall(r"--[a-z]+", shown):
            assert option in text, option
        for code, meaning in program.EXIT_STATUS.items():
            assert re.search(rf"^ +{code} +{re.escape(meaning[:1].upper() + meaning[1:])}", text, re.MULTILINE), code
    assert all(f"   {verb}\n" in page(unpacked, "man1/agentctl.1") for verb in ("status", "rotate", "history"))
    assert all(event in page(unpacked, "man8/iot-agent.8") for event in journal_events.MESSAGE_IDS)
    keys = page(unpacked, "man5/agent.yaml.5")
    for key in agent_yaml.SETTINGS:
        assert re.search(rf"^ +{re.escape(key)}\b", keys, re.MULTILINE), key


def test_help_tells_the_exit_statuses() -> None:
    shown = run(sys.executable, "-m", "iot_agent.agentctl", "--help")
    for code, meaning in agentctl.EXIT_STATUS.items():
        assert f"{code:<3} {meaning}" in shown


BASH = """
source /usr/share/bash-completion/bash_completion; source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
eval "$(complete -p "$1" | sed -n 's/.*-F \\([^ ]*\\).*/\\1/p')"; printf '%s\\n' "${COMPREPLY[@]}"
"""


def test_bash_completes(unpacked: Path) -> None:
    there = unpacked / "usr/share/bash-completion/completions"
    assert run("bash", "-c", BASH, "bash", there / "agentctl", "agentctl", "st").split() == ["status"]
    options = run("bash", "-c", BASH, "bash", there / "agentctl", "agentctl", "status", "--").split()
    assert {"--json", "--watch"} <= set(options)
    assert "--check" in run("bash", "-c", BASH, "bash", there / "iot-agent", "iot-agent", "--c").split()


def test_fish_completes(unpacked: Path) -> None:
    for program, typed, expected in (
        ("agentctl", "agentctl ro", "rotate"),
        ("agentctl", "agentctl rotate --", "--wait"),
        ("iot-agent", "iot-agent --ch", "--check"),
    ):
        script = unpacked / f"usr/share/fish/vendor_completions.d/{program}.fish"
        said = run("fish", "--no-config", "-c", f"source {script}; complete -C '{typed}'")
        assert expected in [line.split("\t")[0] for line in said.splitlines()]


def test_zsh_takes_its_completions(unpacked: Path) -> None:
    for name in ("_agentctl", "_iot-agent"):
        script = unpacked / "usr/share/zsh/vendor-completions" / name
        run("zsh", "-n", script)
        assert script.read_text().startswith(f"#compdef {name[1:]}\n")


def test_it_also_installs_into_an_environment_from_the_checkout(tmp_path: Path) -> None:
    """What pipx does: build a wheel of the checkout, and find both programs working."""
    uv = ROOT / "build/env/uv/bin/uv"
    run(uv, "venv", "--quiet", tmp_path / "env")
    locks = ROOT / "packaging/locks"
    run(
        uv,
        "pip",
        "sync",
        "--quiet",
        "--python",
        tmp_path / "env",
        "--require-hashes",
        "--build-constraints",
        locks / "build.txt",
        locks / "agent.txt",
    )
    run(uv, "pip", "install", "--quiet", "--python", tmp_path / "env", "--build-constraints", locks / "build.txt", ROOT)
    for program in ("iot-agent", "agentctl"):
        assert run(tmp_path / "env/bin" / program, "--version").strip() == f"{program} {iot_agent.__version__}"


def test_the_container_recipe_copies_what_is_there_and_starts_what_is_installed() -> None:
    recipe = (ROOT / "packaging/Containerfile").read_text()
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", recipe, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    assert recipe.count("--require-hashes") == 2
    assert 'ENTRYPOINT ["iot-agent"]' in recipe
