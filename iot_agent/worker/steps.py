"""What each kind of step does: one function each. It acts through the ports only; `lifecycle` decides.

After a crash at any point a step may be run again, with the same result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from iot_agent.core import protocol
from iot_agent.core.errors import AgentError, Code, Fatal, Retryable
from iot_agent.core.lifecycle import asks_with_bootstrap, to_prove
from iot_agent.core.ports import Cloud, Credentials, Examiner, Identities, KeyStore, Session
from iot_agent.core.protocol import ACK, CHECK_IN, CREATE, ErrorResponse, Malformed, Topics
from iot_agent.core.record import (
    CheckedIn,
    Failed,
    Generated,
    Identity,
    Introduced,
    Issued,
    Kind,
    Outcome,
    Pending,
    Proven,
    Record,
    Retired,
    Success,
)
from iot_agent.core.schedule import Policy, worth_taking

NOT_ALLOWED = "not-allowed"  # the code of an error reply
MOST_AT_ONCE = 100  # identities removed in one run, so that the outcome stays small


class _Reply(Protocol):
    @property
    def request_id(self) -> str | None: ...


R = TypeVar("R", bound=_Reply)


@dataclass(frozen=True)
class StepContext:
    """What a step may touch, and the settings that it needs; `report` is what a check-in tells besides the record."""

    keys: KeyStore
    cloud: Cloud
    identities: Identities
    examine: Examiner
    bootstrap: Credentials
    topics: Topics
    algorithm: str
    policy: Policy
    report: dict[str, Any]


def run(step: Kind, record: Record, now: float, context: StepContext) -> Outcome:
    """Run one step; every error but a bug of ours comes back as `Failed`."""
    try:
        return STEPS[step](record, now, context)
    except AgentError as error:
        return Failed(error.code, str(error), error.remedy, isinstance(error, Fatal), error.retry_after)
    except OSError as error:
        problem = Retryable(Code.DISK, f"{error}")
        return Failed(problem.code, str(problem), problem.remedy, fatal=False)


def introduce(_record: Record, _now: float, context: StepContext) -> Success:
    """Connect with the bootstrap certificate. The first time, the cloud registers it and closes the connection."""
    with context.cloud.session(context.bootstrap) as session:
        session.subscribe([context.topics.response(CREATE)])
    return Introduced()


def generate(record: Record, now: float, context: StepContext) -> Success:
    """Make the pending key, then its CSR."""
    label = _pending(record).label
    try:
        context.keys.generate(label, context.algorithm)
    except Retryable as problem:
        if problem.code != Code.TOKEN_FULL:
            raise
        retire(record, now, context)  # what crashes have left may occupy the token
        context.keys.generate(label, context.algorithm)
    context.identities.create(label, context.keys.csr(label, record.serial))
    return Generated()


def request(record: Record, now: float, context: StepContext) -> Success:
    """Send the CSR over an identity that may ask; store the certificate only if it is fit.

    If the certificate is stored already, no request is sent: the record may be older than the disk.
    """
    pending = _pending(record)
    stored = next((one for one in context.identities.complete() if one.label == pending.label), None)
    if stored is not None:
        return Issued(stored.certificate, None, record.answers_once)
    csr, public_key = _signing_request(pending.label, record.serial, context)
    message = protocol.CreateRequest(csr, pending.request_id)
    asking = context.bootstrap if asks_with_bootstrap(record) else _active(record, context)
    with context.cloud.session(asking) as session:
        session.subscribe([context.topics.response(CREATE)])
        reply = _exchange(session, context.topics, CREATE, message, protocol.parse_create_response)
    certificate = context.examine(reply.pem, reply.chain, public_key)
    if certificate.certificate_id != reply.cert_id:
        raise Retryable(Code.BAD_REPLY, f"the cloud calls the certificate {reply.cert_id}; it is another one")
    if not worth_taking(certificate.not_before, certificate.not_after, now, context.policy):
        raise Retryable(
            Code.UNFIT_CERTIFICATE, "the issued certificate was refused: it would be due for renewal at once"
        )
    context.identities.store(Identity(pending.label, certificate), reply.pem, reply.chain)
    return Issued(certificate, _seconds(reply.time), reply.time is None and reply.request_id is None)


def _signing_request(label: str, serial: str, context: StepContext) -> tuple[str, bytes]:
    """Make the CSR again, so that only the key must have survived a crash; before the session, which may use the token.

    A pending key that can never be used has an error code of its own: it does not concern the identity that asks.
    """
    try:
        return context.keys.csr(label, serial), context.keys.public_key(label)
    except Fatal as error:
        raise Fatal(Code.PENDING_KEY, f"the key of the next certificate: {error}") from error


def prove(record: Record, _now: float, context: StepContext) -> Success:
    """Do over the new certificate all that the device needs: connect, subscribe, publish, be answered."""
    identity = to_prove(record)
    certificate_id = identity.certificate.certificate_id
    credentials = context.keys.credentials(identity.label, context.identities.certificate(identity.label))
    request_id = record.pending.request_id if record.pending is not None else f"prove-{certificate_id[:16]}"
    message = protocol.AckRequest(certificate_id, request_id)
    with context.cloud.session(credentials) as session:
        session.subscribe([context.topics.response(verb) for verb in (ACK, CREATE, CHECK_IN)])
        reply = _exchange(session, context.topics, ACK, message, protocol.parse_ack_response)
    if reply.cert_id != certificate_id:
        raise Retryable(Code.BAD_REPLY, f"the cloud acknowledged another certificate, {reply.cert_id}")
    return Proven(_seconds(reply.time))


def retire(record: Record, _now: float, context: StepContext) -> Success:
    """Remove what the record lists in `to_delete`, and what crashes have left: a directory without key or certificate.

    A complete identity that the record does not know stays. If a key cannot be removed, because its token is away, the
    others are removed all the same. What is too much for one run is left to the next one.
    """
    useless = set(record.to_delete) | context.identities.orphans()
    problem: AgentError | None = None
    try:
        useless |= context.keys.labels() - context.identities.labels()
    except AgentError as trouble:
        problem = trouble
    removed = []
    for label in sorted(useless - record.protected_labels)[:MOST_AT_ONCE]:
        trouble_here = _remove(label, context)
        problem = trouble_here or problem
        if trouble_here is None:
            removed.append(label)
    if problem is not None:
        raise problem
    return Retired(tuple(removed))


def _remove(label: str, context: StepContext) -> AgentError | None:
    """Remove one identity, but not while applications use it: a fault of the disk kept `current` from being changed."""
    if label == context.identities.current() and any(one.label == label for one in context.identities.complete()):
        return Retryable(Code.DISK, f"{label} is not removed: `current` names it, because it could not be changed")
    try:
        context.keys.remove(label)
    except AgentError as problem:
        return problem
    context.identities.remove(label)
    return None


def check_in(record: Record, now: float, context: StepContext) -> Success:
    """Report to the cloud, and receive its time and advice."""
    if record.active is None:
        raise RuntimeError("there is no active certificate to check in with")
    report = {
        **context.report,
        "state": record.state,
        "certificate_id": record.active.certificate.certificate_id,
        "not_before": record.active.certificate.not_before,
        "not_after": record.active.certificate.not_after,
        "clock": int(now),
        "last_error": None if record.failure is None else record.failure.code,
    }
    message = protocol.CheckInRequest(f"check-in-{int(now)}", report)
    with context.cloud.session(_active(record, context)) as session:
        session.subscribe([context.topics.response(CHECK_IN)])
        reply = _exchange(session, context.topics, CHECK_IN, message, protocol.parse_check_in_response)
    return CheckedIn(reply.time // 1000, reply.renew)


STEPS: dict[Kind, Callable[[Record, float, StepContext], Success]] = {
    Kind.INTRODUCE: introduce,
    Kind.GENERATE: generate,
    Kind.REQUEST: request,
    Kind.PROVE: prove,
    Kind.RETIRE: retire,
    Kind.CHECK_IN: check_in,
}


def _exchange(
    session: Session,
    topics: Topics,
    verb: str,
    message: protocol.CreateRequest | protocol.AckRequest | protocol.CheckInRequest,
    parse: Callable[[bytes], R | ErrorResponse],
) -> R:
    """Send a request and wait for its answer; late answers to earlier requests are ignored.

    "Not allowed" may come from another stack that listens on the same prefix: it counts only if no other answer comes.
    """
    not_allowed: list[str] = []

    def accept(payload: bytes) -> R | None:
        try:
            reply = parse(payload)
        except Malformed as problem:
            raise Retryable(Code.BAD_REPLY, f"the cloud's answer to {verb} is malformed: {problem}") from problem
        if reply.request_id not in (None, message.request_id):
            return None
        if not isinstance(reply, ErrorResponse):
            return reply
        said = f"the cloud answered {reply.code}: {reply.message}"
        if reply.retry_after_s is not None:
            raise Retryable(Code.CLOUD_ERROR, said, reply.retry_after_s)
        if reply.code != NOT_ALLOWED:
            raise Fatal(Code.CLOUD_REFUSED, said)
        not_allowed.append(said)
        return None

    try:
        return session.exchange(topics.request(verb), protocol.encode(message), topics.response(verb), accept)
    except Retryable as silence:
        if silence.code != Code.NO_REPLY or not not_allowed:
            raise
        raise Retryable(Code.NOT_ALLOWED, not_allowed[-1]) from silence


def _active(record: Record, context: StepContext) -> Credentials:
    if record.active is None:
        raise RuntimeError("there is no active identity yet")
    return context.keys.credentials(record.active.label, context.identities.certificate(record.active.label))


def _pending(record: Record) -> Pending:
    if record.pending is None:
        raise RuntimeError("no rotation is under way")
    return record.pending


def _seconds(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else milliseconds // 1000
