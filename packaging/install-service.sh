#!/bin/bash
# Makes a service of an iot-agent that is installed without the Debian package: sudo packaging/install-service.sh [PROGRAM]
# PROGRAM is the installed iot-agent (default: the one in PATH). Creates the user, /etc/iot-agent, the systemd unit and its
# rules for modes, and starts it. Running it again updates the unit and keeps the configuration.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "install-service.sh: $1" >&2
    exit 1
}

((EUID == 0)) || fail "run it as root, or with sudo"
program=$(realpath --no-symlinks "$(command -v "${1:-iot-agent}")") || fail "iot-agent is not in PATH; name it: $0 PROGRAM"
command -v systemd-sysusers >/dev/null || fail "this machine has no systemd"
# The unit hides the home directories from the service, and the agent's user must be able to run the program.
case $(realpath "$program") in
/home/* | /root/*)
    fail "$(realpath "$program") is in a home directory, which the service cannot see. Install it elsewhere:
PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install ."
    ;;
esac

systemd-sysusers "$PWD/packaging/debian/iot-agent.sysusers" # a relative path would be looked for in sysusers.d
install -d -m 750 -g iot-agent /etc/iot-agent
[[ -e /etc/iot-agent/agent.yaml ]] ||
    sed 's/^\( *\)\([^# ]\)/#\1\2/' config/agent.yaml | install -m 640 -g iot-agent /dev/stdin /etc/iot-agent/agent.yaml
install -D -m 644 packaging/debian/iot-agent.tmpfiles /etc/tmpfiles.d/iot-agent.conf
systemd-tmpfiles --create iot-agent.conf
sed "s|^ExecStart=/usr/bin/iot-agent|ExecStart=$program|" packaging/iot-agent.service |
    install -m 644 /dev/stdin /etc/systemd/system/iot-agent.service
systemctl daemon-reload
systemctl enable --quiet iot-agent
systemctl restart iot-agent
echo "iot-agent runs as $program and waits for the bundle of this device. Copy it, and the service goes on by itself:"
echo "  sudo cp -rT bundle /etc/iot-agent && sudo systemd-tmpfiles --create iot-agent.conf && sudo agentctl status"
