"""What purging the package does to the state directory, in a mount namespace of its own; the script itself is run."""

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs_root

SCRIPT = Path(__file__).parents[2] / "packaging/debian/iot-agent.postrm"
PREPARE = """
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /mnt
{ getent passwd; echo iot-agent:x:4321:4321::/nonexistent:/usr/sbin/nologin; } >/mnt/passwd
mount --bind /mnt/passwd /etc/passwd
fill() {
    mkdir -p "$1/identities/iot-agent-1"
    touch "$1/state.json" "$1/.state.json.new" "$1/identities/iot-agent-1/key.pem"
    ln -s identities/iot-agent-1 "$1/current"
    chown -hR iot-agent "$1"
}
"""
SHOW = '\nprintf "went on %s\\n" "$?"; find /var/lib /mnt -mindepth 1 ! -name passwd | sort\n'


def purge(prepare: str, script: Path = SCRIPT) -> tuple[list[str], str]:
    """Run the script on what `prepare` makes; give what is left and what was said."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec"]
    whole = f"{PREPARE}{prepare}\nset +e; sh {script} purge{SHOW}"
    done = subprocess.run([*command, whole], capture_output=True, text=True, check=True)
    went_on, *left = done.stdout.splitlines()
    assert went_on == "went on 0", done.stderr
    return left, done.stderr


def test_a_directory_goes_with_all_that_is_in_it_and_nothing_else() -> None:
    assert purge("fill /var/lib/iot-agent; touch /var/lib/iot-agent/more; mkdir /var/lib/other") == (
        ["/var/lib/other"],
        "",
    )


def test_nothing_there_is_nothing_to_say() -> None:
    assert purge("") == ([], "")


LINKED = "fill /mnt/disk/state; touch /mnt/disk/state/of-somebody-else /mnt/disk/more; ln -s {} /var/lib/iot-agent"


@pytest.mark.parametrize("target", ["/mnt/disk/state", "../../mnt/disk/state"])
def test_a_link_is_followed_once_and_only_what_is_the_agents_goes(target: str) -> None:
    left, said = purge(LINKED.format(target))
    assert left == ["/mnt/disk", "/mnt/disk/more", "/mnt/disk/state", "/mnt/disk/state/of-somebody-else"]
    assert said == ""


def test_a_link_in_the_directory_is_not_followed() -> None:
    left, _ = purge("fill /var/lib/iot-agent; mkdir /mnt/x; touch /mnt/x/key; ln -s /mnt/x /var/lib/iot-agent/out")
    assert left == ["/mnt/x", "/mnt/x/key"]


def test_a_mount_point_is_emptied_told_and_gone_on_from() -> None:
    left, said = purge("mkdir /var/lib/iot-agent; mount -t tmpfs tmpfs /var/lib/iot-agent; fill /var/lib/iot-agent")
    assert left == ["/var/lib/iot-agent"]
    assert "iot-agent: /var/lib/iot-agent could not be removed; if keys are left there, remove them by hand" in said


def test_a_mount_in_it_is_emptied_too() -> None:
    keys = "/var/lib/iot-agent/identities"
    left, said = purge(f"mkdir -p {keys}; mount -t tmpfs tmpfs {keys}; fill /var/lib/iot-agent")
    assert left == ["/var/lib/iot-agent", keys]
    assert f"iot-agent: {keys} could not be removed" in said


def test_a_read_only_disk_is_told() -> None:
    left, said = purge(
        "mkdir /var/lib/iot-agent; mount -t tmpfs tmpfs /var/lib/iot-agent; fill /var/lib/iot-agent; "
        "mount -o remount,ro /var/lib/iot-agent"
    )
    assert "/var/lib/iot-agent/identities/iot-agent-1/key.pem" in left
    assert re.search(r"^iot-agent: /var/lib/iot-agent/\S+ could not be removed", said, re.MULTILINE)


@pytest.mark.parametrize(
    "prepare", [LINKED.format("/mnt/disk/state"), "mkdir /var/lib/iot-agent; mount -t tmpfs x /var/lib/iot-agent"]
)
def test_removing_it_in_one_go_would_be_noticed(tmp_path: Path, prepare: str) -> None:
    simple = tmp_path / "postrm"
    simple.write_text("set -e\nrm -rf /var/lib/iot-agent\n")
    try:
        left, _ = purge(prepare, simple)
    except AssertionError:
        return  # it stopped half-way
    assert [path for path in left if path.endswith("key.pem")]
