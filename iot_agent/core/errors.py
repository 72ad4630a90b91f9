"""What can go wrong, in two kinds, each with a remedy for a person. Pure.

Retryable   it may pass: the same step is tried again after a back-off
Fatal       the same step will fail again: the agent reports it, and goes on with what else it can do

A code is a stable word: it is stored in the record, shown by `agentctl status`, and documented once, here. What a
failure says about an identity is read from its code alone, in three sets:

REFUSALS    the cloud has said no, explicitly: only these count against a certificate that is being proven
TURNED_AWAY the same, and a "not allowed", which may be another stack's answer: reasons to try another identity
UNUSABLE    the identity that was to be shown cannot be used on this device: its key, its certificate or its token
all others  say nothing about a certificate: no answer, a lost connection, a server that cannot be trusted
"""

from enum import StrEnum

LOCKED_PAUSE = 3600  # seconds without an attempt at a locked token: each attempt may make its lock longer
LONGEST_TEXT = 1024  # characters of an error's message: it is stored in the record


class Code(StrEnum):
    """Every kind of failure."""

    UNREACHABLE = "unreachable"
    UNTRUSTED_SERVER = "untrusted-server"
    REFUSED = "refused"
    CONNECTION_LOST = "connection-lost"
    NOT_PERMITTED = "not-permitted"
    NO_REPLY = "no-reply"
    BAD_REPLY = "bad-reply"
    CLOUD_ERROR = "cloud-error"
    NOT_ALLOWED = "not-allowed"
    CLOUD_REFUSED = "cloud-refused"
    UNFIT_CERTIFICATE = "unfit-certificate"
    BAD_CREDENTIALS = "bad-credentials"
    PENDING_KEY = "pending-key"
    KEY_STORE = "key-store"
    TOKEN = "token"  # noqa: S105 - a word, not a password
    TOKEN_FULL = "token-full"  # noqa: S105 - the same
    PIN = "pin"
    PIN_REFUSED = "pin-refused"
    PIN_LOCKED = "pin-locked"
    DISK = "disk"
    WORKER_TIMEOUT = "worker-timeout"
    WORKER_CRASHED = "worker-crashed"
    INTERNAL = "internal"


REFUSALS = frozenset({Code.REFUSED, Code.NOT_PERMITTED, Code.CLOUD_REFUSED})
TURNED_AWAY = REFUSALS | {Code.NOT_ALLOWED}
UNUSABLE = frozenset({
    Code.BAD_CREDENTIALS, Code.KEY_STORE, Code.TOKEN, Code.PIN, Code.PIN_REFUSED, Code.PIN_LOCKED, Code.DISK,
})  # fmt: skip
REMEDIES: dict[Code, str] = {
    Code.UNREACHABLE: "Check the network, DNS, and endpoint.host and endpoint.port in agent.yaml.",
    Code.UNTRUSTED_SERVER: (
        "The endpoint's TLS certificate does not lead to endpoint.ca_file. Check the clock, the file, and whether "
        "something on the network intercepts TLS."
    ),
    Code.REFUSED: (
        "The cloud closed the connection. On a first connection this is how just-in-time provisioning works and "
        "it passes by itself; later, the certificate is not active or its policy forbids the client id."
    ),
    Code.CONNECTION_LOST: (
        "The connection broke during the step. It will be tried again; if it repeats, look for a second client "
        "that uses the same client id."
    ),
    Code.NOT_PERMITTED: (
        "The certificate's IoT policy forbids a topic that the agent needs. Compare it with the stack's."
    ),
    Code.NO_REPLY: "The cloud took the message and did not answer. Look at the stack's function log and failure queue.",
    Code.BAD_REPLY: "The cloud's answer is not in the protocol. Check topic_prefix and the stack's version.",
    Code.CLOUD_ERROR: "The cloud answered that it cannot do this now; its message says why.",
    Code.NOT_ALLOWED: (
        "The cloud does not allow this device to ask. An operator must allow it, or readmit it if it has served "
        "before: iot-fleet show SERIAL says which. The agent goes on asking."
    ),
    Code.CLOUD_REFUSED: "The cloud refused the request; its message says why. An operator must change something there.",
    Code.UNFIT_CERTIFICATE: (
        "The certificate that the cloud issued was refused before it was stored; the message names the check. "
        "Look at the stack's CA and lifetime parameter, and at this device's clock."
    ),
    Code.BAD_CREDENTIALS: "A certificate or key cannot be used. Check that it exists, is PEM, and belongs together.",
    Code.PENDING_KEY: (
        "The key that was made for the next certificate cannot be used; another is made. If it repeats, check the disk "
        "or the token."
    ),
    Code.KEY_STORE: (
        "The key store could not do what was asked. Check free space and permissions, and keys.backend in agent.yaml."
    ),
    Code.TOKEN: (
        "The token or its PKCS #11 module cannot be used now. Check that it is plugged in, and that keys.module "
        "and keys.token in agent.yaml name it: pkcs11-tool --module MODULE --list-slots shows what is there."
    ),
    Code.TOKEN_FULL: "The token made no key, most likely for want of room. Remove objects from it that nothing needs.",
    Code.PIN: (
        "The token's PIN cannot be read. Check keys.pin in agent.yaml: a credential of the unit, or a file of "
        "mode 0600 that belongs to the agent's user or to root."
    ),
    Code.PIN_REFUSED: (
        "The token refused the PIN. It is not tried again: a token locks after a few attempts. Correct what "
        "keys.pin names, and it is tried once more; touch the file if the PIN was changed on the token instead."
    ),
    Code.PIN_LOCKED: (
        "The token is locked after too many wrong PINs, perhaps another program's. A TPM unlocks with time (or by "
        "tpm2_dictionarylockout --clear-lockout); other tokens need their security officer's PIN."
    ),
    Code.DISK: "The state directory could not be read or written. Check free space, free inodes, and its mount.",
    Code.WORKER_TIMEOUT: "The step took longer than its limit and was stopped. It will be tried again.",
    Code.WORKER_CRASHED: "The step's process died. It will be tried again; the journal holds what it said last.",
    Code.INTERNAL: "This is a fault in the agent. Please report it with the lines around it from the journal.",
}


def printable(text: str) -> str:
    """Give `text` on one line, with `?` for every character that a terminal or a line protocol would interpret."""
    return "".join(character if character.isprintable() else " " if character.isspace() else "?" for character in text)


class AgentError(Exception):
    """A failure with its code; `retry_after` is in seconds, when the cloud named a time.

    The message may hold what a server, a library or a certificate said, so it is made printable and cut here, before
    it can reach the record, the journal, systemd's STATUS= or a terminal.
    """

    def __init__(self, code: Code, message: str, retry_after: int | None = None) -> None:
        super().__init__(printable(message)[:LONGEST_TEXT])
        self.code = code
        self.retry_after = retry_after

    @property
    def remedy(self) -> str:
        """One or two sentences: what a person can do."""
        return REMEDIES[self.code]


class Retryable(AgentError):
    """The same step, tried again later, may succeed."""


class Fatal(AgentError):
    """The same step will fail again until a person changes something."""
