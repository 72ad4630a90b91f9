"""The worker: runs one step and ends (`host/subprocesses.py` has the protocol).

All that is heavy or may crash (the TLS and MQTT library, cryptography, a token's module) is loaded in this process or
in a child of it. The worker ends when its stdin does: that is when the daemon ends, so two steps never run at once.
"""

import os
import sys
import threading
from contextlib import AbstractContextManager, nullcontext

from iot_agent import __version__
from iot_agent.config import bundle
from iot_agent.core.codec import Request, decode_request, encode_outcome
from iot_agent.core.errors import AgentError, Fatal
from iot_agent.core.ports import Credentials
from iot_agent.core.protocol import Topics
from iot_agent.core.record import Certificate, Failed, Kind, Outcome
from iot_agent.core.settings import Token
from iot_agent.host import hardening, journal
from iot_agent.keys import certificates
from iot_agent.keys.keyring import KeyRing
from iot_agent.keys.pin import PinSources
from iot_agent.keys.token import TokenKeys
from iot_agent.storage import layout
from iot_agent.storage.identities import IdentityDirectories
from iot_agent.storage.identity_lock import HELD_BY_PARENT, LONGEST_WAIT, exclusive_use
from iot_agent.worker import steps
from iot_agent.worker.connect_throttle import ConnectThrottle
from iot_agent.worker.mqtt import Endpoint, MqttCloud

TOKEN_SHARE = 0.8  # of a step's limit, for one operation on a token: the rest is for reporting that it hung


def main() -> int:
    """Serve one request."""
    hardening.keep_private()
    hardening.limit_memory()
    os.umask(0o077)
    journal.configure("info")  # until the request is read; an error of that is logged without secrets, too
    request = decode_request(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_the_daemon, daemon=True).start()
    journal.configure(request.settings.log_level)
    with _identity_lock(request):
        outcome = _run(request)
    sys.stdout.buffer.write(encode_outcome(outcome))
    sys.stdout.buffer.flush()
    return 0


def _run(request: Request) -> Outcome:
    """Run the step; if a file that was delivered with the device is unfit for it, the cloud is not asked."""
    try:
        context = _context(request)
    except AgentError as error:
        return Failed(error.code, str(error), error.remedy, isinstance(error, Fatal))
    return steps.run(request.step, request.record, request.now, context)


def _identity_lock(request: Request) -> AbstractContextManager[object]:
    """Take the identity lock; if the doctor holds it for too long, go ahead without: a step is more important."""
    if HELD_BY_PARENT in sys.argv:
        return nullcontext()
    return exclusive_use(request.settings.state_directory, min(LONGEST_WAIT, request.settings.step_limit / 4))


def _end_with_the_daemon() -> None:
    while os.read(0, 1):  # not sys.stdin: this thread would hold its lock while Python shuts down
        pass
    os._exit(os.EX_TEMPFAIL)  # at once: every step may be interrupted at any point


def _context(request: Request) -> steps.StepContext:
    """Choose the adapter behind each port, by the settings."""
    given = request.settings
    state = given.state_directory
    identities = IdentityDirectories(state)
    limit = given.key_limit if request.step is Kind.GENERATE else given.step_limit

    def on_token(token: Token) -> TokenKeys:
        return TokenKeys(state, token, limit * TOKEN_SHARE)

    issuers = bundle.issuers(given.manufacturer_ca) if request.step is Kind.REQUEST else None

    def examine(pem: str, chain: str | None, public_key: bytes) -> Certificate:
        expected = certificates.Expectation(public_key, given.serial, issuers, request.now)
        return certificates.check_fit(pem, chain, expected)

    return steps.StepContext(
        keys=KeyRing(state, given.keys_backend, given.keys_token, on_token),
        cloud=MqttCloud(
            Endpoint(given.endpoint_host, given.endpoint_port, given.endpoint_ca_file, given.client_id),
            PinSources(state),
            ConnectThrottle(given.run_directory / layout.LAST_CONNECT),
        ),
        identities=identities,
        examine=examine,
        bootstrap=Credentials(given.bootstrap_certificate, given.bootstrap_key),
        topics=Topics(given.topic_prefix, given.serial),
        algorithm=given.keys_algorithm,
        policy=given.policy,
        report={
            "agent_version": __version__,
            "key_backend": given.keys_backend,
            "key_algorithm": given.keys_algorithm,
            "clock_trusted": request.clock_trusted,
        },
    )


if __name__ == "__main__":
    sys.exit(main())
