"""Every file that the agent keeps: its name, its mode and who writes it. Names and modes are decided here only. Pure.

In the directory `paths.state` (0700):

    lock                  held by the daemon                                       0600  main
    state.json            the record; `state.json.previous` is the one before it   0600  storage/record_store
    current               link to the directory of the active identity                   storage/identities
    pin-refused-….json    shows that a token has refused a PIN                     0600  keys/pin
    identities/ (0700)
      <label>/ (0700)     one key, and all that belongs to it
        key.pem           the private key                                          0600  keys/file
        key.uri           instead of it: where the key is on a token               0600  keys/token
        csr.pem           the certificate signing request                          0600  storage/identities
        certificate.pem   the certificate                                          0644  storage/identities
        chain.pem         the certificates of its issuers                          0644  storage/identities
        identity.json     the certificate's facts; last: the identity is complete  0600  storage/identities

In the directory `paths.run` (0755):

    control.sock          for agentctl                                             0660  host/control_socket
    identity.json         tells applications which identity is active              0644  storage/application_access
    last-connect          its time is that of the device's last connection         0600  worker/connect_throttle

With `identity.group`, `storage/application_access` gives that group the active identity: its key has mode 0640, its
directory 0750, and the directories above it 0710.
"""

import re
from datetime import UTC, datetime

LOCK, RECORD, PREVIOUS_RECORD = "lock", "state.json", "state.json.previous"
CURRENT, IDENTITIES = "current", "identities"
KEY, KEY_ON_TOKEN = "key.pem", "key.uri"
CSR, CERTIFICATE, CHAIN, FACTS = "csr.pem", "certificate.pem", "chain.pem", "identity.json"
CONTROL_SOCKET, ANNOUNCEMENT, LAST_CONNECT = "control.sock", "identity.json", "last-connect"

KEY_MODE = 0o600
PRIVATE_FILE_MODE = 0o600
PUBLIC_FILE_MODE = 0o644
PRIVATE_DIRECTORY_MODE = 0o700
RUN_DIRECTORY_MODE = 0o755

GROUP_KEY_MODE = 0o640
GROUP_DIRECTORY_MODE = 0o750
GROUP_WAY_MODE = 0o710  # to pass through, not to list

_LABEL = re.compile(r"iot-agent-[0-9A-Za-z-]{1,80}")


def is_label(name: str) -> bool:
    """Say whether a directory of this name in `identities/` is ours; what is not is never touched."""
    return _LABEL.fullmatch(name) is not None


def new_label(now: float, random: bytes) -> str:
    """Make the label of a new key: the device's time, for people, and random bytes, because that time may be wrong."""
    return f"iot-agent-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{random.hex()}"


def pin_refusal(token: str) -> str:
    """Name the file for the token with this label: in hexadecimal, because the label may contain any character."""
    return f"pin-refused-{token.encode().hex()}.json"
