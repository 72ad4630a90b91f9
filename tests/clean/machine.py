"""A bare machine of a Debian release: its minimal installation with systemd and sudo, and nothing of ours.

It shares this machine's network, the certificate authorities that this machine trusts, and a bare repository of this
checkout, to which the URL of README's `git clone` leads. The installation is made once, under build/clean; what a test
changes lies in a layer above it.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from tests.system.machine import Machine

ROOT = Path(__file__).parents[2]
BASES = ROOT / "build/clean"
REPOSITORY = "/srv/iot-agent.git"
USER = "user"
LONGEST = 900  # seconds for one line
AUTHORITIES = "usr/local/share/ca-certificates"
SYSTEM = "systemd-sysv,dbus,sudo,ca-certificates"


class BareMachine(Machine):
    """One machine under `directory`; `base` is the root of the installation below it."""

    def __init__(self, directory: Path, base: Path) -> None:
        super().__init__(directory)
        self._lower = base

    def assemble(self) -> None:
        """Lay a layer over the installation, and put into it what a person would have set up before."""
        disk = self._base / "disk"
        for part in ("up", "work", "root"):
            (disk / part).mkdir(parents=True)
        layers = f"lowerdir={self._lower},upperdir={disk / 'up'},workdir={disk / 'work'}"
        _do("mount", "-t", "overlay", "overlay", "-o", layers, str(self.root))
        (self.root / "etc/machine-id").write_text("")
        (self.root / "etc/hosts").write_text(f"127.0.0.1 localhost {os.uname().nodename}\n")
        shutil.copy("/etc/resolv.conf", self.root / "etc/resolv.conf")
        for authority in Path("/", AUTHORITIES).glob("*.crt"):
            shutil.copy(authority, self.root / AUTHORITIES)
        for unit in ("systemd-networkd.service", "systemd-resolved.service", "systemd-timesyncd.service"):
            (self.root / "etc/systemd/system" / unit).symlink_to("/dev/null")
        # What is typed is typed as it stands; nobody is there to say yes.
        (self.root / "etc/apt/apt.conf.d/yes").write_text('APT::Get::Assume-Yes "true";\n')

    def _nspawn_options(self) -> str:
        return "--resolv-conf=off"

    def _remove_cable(self) -> None:
        """Do nothing: it has no cable."""

    def settle(self, url: str) -> None:
        """Make the user, trust the authorities, and have `url` lead to the commit that is checked out here."""
        self.run("update-ca-certificates")
        self.run("useradd", "--create-home", "--shell", "/bin/bash", USER)
        bare = self.root / REPOSITORY[1:]
        commit = _do("git", "-C", str(ROOT), "stash", "create") or "HEAD"
        _do("git", "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
        _do("git", "-C", str(ROOT), "push", "--quiet", str(bare), f"{commit}:refs/heads/main")
        (self.root / "etc/gitconfig").write_text(
            f'[url "file://{REPOSITORY}"]\n\tinsteadOf = {url}\n[safe]\n\tdirectory = {REPOSITORY}\n'
        )

    def allow_sudo(self) -> None:
        """Let the user become root by sudo."""
        (self.root / "etc/sudoers.d/user").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")

    def type(
        self, line: str, *, user: str = USER, where: str = "", answer: str = "", **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Type a line at the prompt of a user, in a directory below the home; `more` is exported before."""
        exports = "".join(f"export {name}={shlex.quote(value)}; " for name, value in more.items())
        script = f"{exports}cd {where or '.'} && {line}"
        feed = f"printf %s {shlex.quote(answer)} | " if answer else ""
        whole = f"{feed}runuser --login {user} --command {shlex.quote(script)} 2>&1"
        print(f"\n{user}$ {line}", flush=True)  # noqa: T201 - pytest shows it where a test fails
        done = self.run("bash", "-c", whole, check=False, timeout=LONGEST)
        print(done.stdout, flush=True)  # noqa: T201 - the same
        return done


def base_of(release: str) -> Path:
    """Give the root of the minimal installation of a release, made now if it is not there yet."""
    base = BASES / release
    if not (base / "etc/debian_version").exists():
        shutil.rmtree(base, ignore_errors=True)
        BASES.mkdir(parents=True, exist_ok=True)
        _do("mmdebstrap", "--quiet", "--variant=minbase", f"--include={SYSTEM}", release, str(base))
    return base


def _do(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout.strip()
