"""README, typed as it stands on bare machines of Debian 12 and 13. `make test-clean` runs it; RELEASES chooses.

Not part of `make test`: it takes minutes, and installs from Debian's and Python's repositories. The tests of a release
run in their order on one machine. AWS is the local cloud, so `--local` is added to each command that talks to it.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clean.machine import BareMachine, base_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
RELEASES = os.environ.get("RELEASES", "").split() or ["bookworm", "trixie"]
HERE, LOCAL = "iot-agent", " --local build/local"
ACKED = "until agentctl status | grep -q acked; do sleep 0.2; done"
ENDLESS = 5  # seconds after which what runs until Ctrl-C has shown enough


def block(starts: str) -> list[str]:
    """Give the commands of the paragraph in README that starts with a command, without their comments."""
    _, found, rest = README.partition(f"    {starts}")
    assert found, f"README has no line that starts with {starts}"
    lines = (found + rest).split("\n\n")[0].splitlines()
    return [re.sub(r"\s+#.*", "", line).strip() for line in lines]


INSTALL, CLONE, CHANGE, DEMO = block("sudo apt-get install git")
KEEP, STOP, TPM = block("make demo KEEP=1")


@pytest.fixture(scope="module", params=RELEASES)
def machine(request: pytest.FixtureRequest) -> Iterator[BareMachine]:
    base = Path(tempfile.mkdtemp(prefix="clean-", dir="/var/tmp"))
    made = BareMachine(base, base_of(request.param))
    try:
        made.assemble()
        made.boot()
        made.settle(CLONE.split()[-1])
        yield made
    finally:
        made.dismantle()
        shutil.rmtree(base, ignore_errors=True)


def works(machine: BareMachine, line: str, **how: str) -> str:
    done = machine.type(line, where=HERE, **how)
    assert done.returncode == 0, f"{line}: {done.stdout[-3000:]}"
    return done.stdout


def refused(machine: BareMachine, line: str) -> str:
    """Type what this user may not have the packages for; give the command that an administrator is told to run."""
    done = machine.type(line, where=HERE)
    assert done.returncode != 0
    assert "making build/env" not in done.stdout, "something was made before the packages were looked for"
    [command] = [said for said in done.stdout.splitlines() if said.startswith("apt-get install ")]
    return command


def test_the_demo_of_an_ordinary_user(machine: BareMachine) -> None:
    machine.run("apt-get", "-qq", "update", timeout=300)
    assert machine.type(INSTALL.removeprefix("sudo "), user="root").returncode == 0
    assert machine.type(CLONE).returncode == 0
    assert f"cd {HERE}" == CHANGE
    assert "everything is as expected" in works(machine, DEMO)


def test_without_root_and_sudo_one_line_says_what_to_install(machine: BareMachine) -> None:
    for line in ("make deb", "make test", "make bench", "make demo KEYS=softhsm"):
        assert len(refused(machine, line).split()) > 3
    assert machine.type(refused(machine, TPM), user="root").returncode == 0
    assert "disk: no key file" in works(machine, TPM)


def test_what_the_kept_demo_offers(machine: BareMachine) -> None:
    offered = works(machine, KEEP).partition("Try:\n")[2].partition("Stop everything")[0].splitlines()
    assert len(offered) > 5
    for line in map(str.strip, offered):
        endless = "--watch" in line or line.startswith("tail -f")
        done = machine.type(f"timeout {ENDLESS} {line}" if endless else line, where=HERE)
        assert done.returncode == (124 if endless else 0), f"{line}: {done.stdout}"
    assert "the demo is stopped" in works(machine, STOP)


def test_the_cloud_and_the_bundle_of_a_device(machine: BareMachine) -> None:
    machine.allow_sudo()
    works(machine, "setsid --fork make local-up >local-up.log 2>&1 </dev/null")
    machine.run(
        "timeout", "60", "bash", "-c", f"until test -e /home/user/{HERE}/build/local/cloud.json; do sleep 0.2; done"
    )
    for line in block("cloud/setup.sh deploy --dry-run"):
        works(machine, line + LOCAL)


def test_the_device(machine: BareMachine) -> None:
    build, *install, check = block("make deb")
    assert re.fullmatch(r"dist/iot-agent_\S+\.deb", works(machine, build).splitlines()[-1])
    for line in install:
        said = works(machine, line)
        if "apt-get install" in line:
            assert "sudo cp -rT bundle /etc/iot-agent" in said, "the last line of apt says what to do next"
        if "cp -rT" in line:
            told = machine.type(check)
            assert told.returncode == 78, "root can read the bundle, the agent's user cannot yet"
            assert "the agent's user cannot read it; run: sudo systemd-tmpfiles" in told.stdout
    assert "good" in works(machine, check)
    machine.run("timeout", "90", "bash", "-c", ACKED, timeout=100)
    for line in block("sudo agentctl status --watch"):
        endless = "--watch" in line
        done = machine.type(f"timeout {ENDLESS} {line}" if endless else line, where=HERE)
        wanted = (
            (124,) if endless else (0, 1) if "doctor" in line else (0,)
        )  # 1: this machine's clock is not synchronised
        assert done.returncode in wanted, f"{line}: {done.stdout}"
    for document in ("README.md", "docs/debian.md", "docs/tokens.md"):
        assert machine.run("test", "-e", f"/usr/share/doc/iot-agent/{document}", check=False).returncode == 0, document


def test_the_service_without_the_package(machine: BareMachine) -> None:
    """What docs/debian.md says below "Without the package"; another device, because the first has its identity."""
    assert machine.type("sudo apt-get install pipx && sudo apt-get purge iot-agent").returncode == 0
    machine.run("rm", "-r", "/etc/iot-agent")
    works(machine, "cloud/setup.sh device SN-0002 --out bundle-2" + LOCAL)
    _, _, section = (ROOT / "docs/debian.md").read_text().partition("## Without the package")
    lines = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    assert len(lines) == 2
    said = "".join(works(machine, line) for line in lines)
    [copy] = [line.strip() for line in said.splitlines() if "cp -rT bundle " in line]
    works(machine, copy.replace("bundle ", "bundle-2 ").replace("&& sudo agentctl status", ""))
    machine.run("timeout", "90", "bash", "-c", ACKED, timeout=100)
    assert "serial SN-0002" in works(machine, "sudo iot-agent --check")


def test_the_operator(machine: BareMachine) -> None:
    for line in block("cloud/iot-fleet list"):
        done = machine.type(line + LOCAL, where=HERE, answer="yes\n")
        assert done.returncode in ((0, 1) if " list " in line or " show " in line else (0,)), f"{line}: {done.stdout}"


def test_root_needs_no_sudo(machine: BareMachine) -> None:
    """The packages of a token demo are installed by the demo itself."""
    assert machine.type(CLONE, user="root").returncode == 0
    cache = {"UV_CACHE_DIR": "/home/user/.cache/uv"}  # what was downloaded once
    done = machine.type("make demo KEYS=softhsm", user="root", where=HERE, **cache)
    assert done.returncode == 0, done.stdout
    assert "installing the Debian packages" in done.stdout
