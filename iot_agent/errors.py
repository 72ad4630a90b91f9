"""What can go wrong, in two kinds, each with a remedy a person can act on.

Retryable   the world's fault or a passing one: the same step is tried again after a back-off
Fatal       trying the same again cannot help: the agent says so, stays up, and tries again only at the longest interval

A code is a stable word: it is stored in the record, shown by `agentctl status`, and documented once, here.
"""

LOCKED_PAUSE = 3600  # seconds that a locked token is left alone: attempts may make its lock longer
REMEDIES = {
    "unreachable": "Check the network, DNS, and endpoint.host and endpoint.port in agent.yaml.",
    "untrusted-server": "The endpoint's TLS certificate does not lead to endpoint.ca_file. Check the clock, the file, "
    "and whether something on the network intercepts TLS.",
    "refused": "The cloud closed the connection. On a first connection this is how just-in-time provisioning works and "
    "it passes by itself; later, the certificate is not active or its policy forbids the client id.",
    "connection-lost": "The connection broke during the step. It will be tried again; if it repeats, look for a second "
    "client that uses the same client id.",
    "not-permitted": "The certificate's IoT policy forbids a topic that the agent needs. Compare it with the stack's.",
    "no-reply": "The cloud took the message and did not answer. Look at the stack's function log and failure queue.",
    "bad-reply": "The cloud's answer is not in the protocol. Check topic_prefix and the stack's version.",
    "cloud-error": "The cloud answered that it cannot do this now; its message says why.",
    "cloud-refused": "The cloud refused the request; its message says why. An operator must change something there.",
    "unfit-certificate": "The certificate that the cloud issued was refused before it was stored; the message names "
    "the check. Look at the stack's CA and lifetime parameter, and at this device's clock.",
    "bad-credentials": "A certificate or key cannot be used. Check that it exists, is PEM, and belongs together.",
    "key-store": "The key store could not do what was asked. Check free space and permissions, and keys.backend in "
    "agent.yaml.",
    "token": "The token or its PKCS #11 module cannot be used now. Check that it is plugged in, and that keys.module "
    "and keys.token in agent.yaml name it: pkcs11-tool --module MODULE --list-slots shows what is there.",
    "token-full": "The token made no key, most likely for want of room. Remove objects from it that nothing needs.",
    "pin": "The token's PIN cannot be read. Check keys.pin in agent.yaml: a credential of the unit, or a file of mode "
    "0600 that belongs to the agent's user or to root.",
    "pin-refused": "The token refused the PIN. It is not tried again: a token locks after a few attempts. Correct what "
    "keys.pin names, and it is tried once more; touch the file if the PIN was changed on the token instead.",
    "pin-locked": "The token is locked after too many wrong PINs, perhaps another program's. A TPM unlocks with time "
    "(or by tpm2_dictionarylockout --clear-lockout); other tokens need their security officer's PIN.",
    "disk": "The state directory could not be read or written. Check free space, free inodes, and its mount.",
    "worker-timeout": "The step took longer than its limit and was stopped. It will be tried again.",
    "worker-crashed": "The step's process died. It will be tried again; the journal holds what it said last.",
    "internal": "This is a fault in the agent. Please report it with the lines around it from the journal.",
}


class AgentError(Exception):
    """A failure with a code from `REMEDIES`; `retry_after` is in seconds, when the cloud named a time."""

    def __init__(self, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
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
