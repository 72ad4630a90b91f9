"""How: one short function for each kind of step. Effects only through the ports; no decision is taken here.

Each may be run again after a crash at any point in it, and ends in the same place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from iot_agent import messages
from iot_agent.errors import AgentError, Code, Fatal, Retryable
from iot_agent.lifecycle import asks_with_bootstrap
from iot_agent.messages import ACK, CHECK_IN, CREATE, ErrorResponse, Malformed, Topics
from iot_agent.ports import Cloud, Credentials, Examiner, Identities, KeyStore, Session
from iot_agent.record import (
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
from iot_agent.schedule import Policy, worth_taking


class _Reply(Protocol):
    @property
    def request_id(self) -> str | None: ...


R = TypeVar("R", bound=_Reply)


@dataclass(frozen=True)
class World:
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


def run(step: Kind, record: Record, now: float, world: World) -> Outcome:
    """Run one step; whatever goes wrong in the world comes back as `Failed`."""
    try:
        return STEPS[step](record, now, world)
    except AgentError as error:
        return Failed(error.code, str(error), error.remedy, isinstance(error, Fatal), error.retry_after)
    except OSError as error:
        problem = Retryable(Code.DISK, f"{error}")
        return Failed(problem.code, str(problem), problem.remedy, fatal=False)


def introduce(_record: Record, _now: float, world: World) -> Success:
    """Show the bootstrap certificate. The very first time it is registered, and the connection is closed on us."""
    with world.cloud.session(world.bootstrap) as session:
        session.subscribe([world.topics.response(CREATE)])
    return Introduced()


def generate(record: Record, now: float, world: World) -> Success:
    """Make the pending key, then its CSR."""
    label = _pending(record).label
    try:
        world.keys.generate(label, world.algorithm)
    except Retryable as problem:
        if problem.code != Code.TOKEN_FULL:
            raise
        retire(record, now, world)  # what crashes have left may be what takes the room
        world.keys.generate(label, world.algorithm)
    world.identities.create(label, world.keys.csr(label, record.serial))
    return Generated()


def request(record: Record, now: float, world: World) -> Success:
    """Send the CSR over an identity that may ask; store the certificate only if it is fit."""
    pending = _pending(record)
    message = messages.CreateRequest(world.identities.csr(pending.label), pending.request_id)
    public_key = world.keys.public_key(pending.label)  # before the session: a token serves one process at a time
    asking = world.bootstrap if asks_with_bootstrap(record) else _in_force(record, world)
    with world.cloud.session(asking) as session:
        session.subscribe([world.topics.response(CREATE)])
        reply = _exchange(session, world.topics, CREATE, message, messages.parse_create_response)
    certificate = world.examine(reply.pem, reply.chain, public_key)
    if certificate.certificate_id != reply.cert_id:
        raise Retryable(Code.BAD_REPLY, f"the cloud calls the certificate {reply.cert_id}; it is another one")
    if not worth_taking(certificate.not_before, certificate.not_after, now, world.policy):
        raise Retryable(
            Code.UNFIT_CERTIFICATE, "the issued certificate was refused: it would be due for renewal at once"
        )
    world.identities.store(Identity(pending.label, certificate), reply.pem, reply.chain)
    return Issued(certificate, _seconds(reply.time))


def prove(record: Record, _now: float, world: World) -> Success:
    """Do all that life needs over the new certificate: connect, subscribe to every reply, publish, be answered."""
    pending = _pending(record)
    if pending.certificate is None:
        raise RuntimeError("there is no certificate to prove")
    credentials = world.keys.credentials(pending.label, world.identities.certificate(pending.label))
    message = messages.AckRequest(pending.certificate.certificate_id, pending.request_id)
    with world.cloud.session(credentials) as session:
        session.subscribe([world.topics.response(verb) for verb in (ACK, CREATE, CHECK_IN)])
        reply = _exchange(session, world.topics, ACK, message, messages.parse_ack_response)
    if reply.cert_id != pending.certificate.certificate_id:
        raise Retryable(Code.BAD_REPLY, f"the cloud acknowledged another certificate, {reply.cert_id}")
    return Proven(_seconds(reply.time))


def retire(record: Record, _now: float, world: World) -> Success:
    """Remove every key and identity of ours that the record does not keep: leftovers, and orphans of old crashes.

    A key that cannot be removed, because its token is away, does not keep the others from being removed.
    """
    tried: set[str] = set()
    problem: AgentError | None = None
    for find in (world.identities.labels, world.keys.labels):
        try:
            for label in sorted(find() - record.kept - tried):
                problem = _remove(label, world) or problem
                tried.add(label)
        except AgentError as trouble:
            problem = trouble
    if problem is not None:
        raise problem
    return Retired(tuple(sorted(tried | set(record.leftovers))))


def _remove(label: str, world: World) -> AgentError | None:
    try:
        world.keys.remove(label)
    except AgentError as problem:
        return problem
    world.identities.remove(label)
    return None


def check_in(record: Record, now: float, world: World) -> Success:
    """Report, and hear the cloud's clock and advice."""
    if record.active is None:
        raise RuntimeError("there is no active certificate to check in with")
    report = {
        **world.report,
        "state": record.state,
        "certificate_id": record.active.certificate.certificate_id,
        "not_before": record.active.certificate.not_before,
        "not_after": record.active.certificate.not_after,
        "clock": int(now),
        "last_error": None if record.failure is None else record.failure.code,
    }
    message = messages.CheckInRequest(f"check-in-{int(now)}", report)
    with world.cloud.session(_in_force(record, world)) as session:
        session.subscribe([world.topics.response(CHECK_IN)])
        reply = _exchange(session, world.topics, CHECK_IN, message, messages.parse_check_in_response)
    return CheckedIn(reply.time // 1000, reply.renew)


STEPS: dict[Kind, Callable[[Record, float, World], Success]] = {
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
    message: messages.CreateRequest | messages.AckRequest | messages.CheckInRequest,
    parse: Callable[[bytes], R | ErrorResponse],
) -> R:
    """Ask and wait for the answer to this very question; late answers to older ones are passed over."""

    def accept(payload: bytes) -> R | None:
        try:
            reply = parse(payload)
        except Malformed as problem:
            raise Retryable(Code.BAD_REPLY, f"the cloud's answer to {verb} is malformed: {problem}") from problem
        if reply.request_id not in (None, message.request_id):
            return None
        if isinstance(reply, ErrorResponse):
            said = f"the cloud answered {reply.code}: {reply.message}"
            if reply.retry_after_s is None:
                raise Fatal(Code.CLOUD_REFUSED, said)
            raise Retryable(Code.CLOUD_ERROR, said, reply.retry_after_s)
        return reply

    return session.exchange(topics.request(verb), messages.encode(message), topics.response(verb), accept)


def _in_force(record: Record, world: World) -> Credentials:
    if record.active is None:
        raise RuntimeError("there is no identity in force yet")
    return world.keys.credentials(record.active.label, world.identities.certificate(record.active.label))


def _pending(record: Record) -> Pending:
    if record.pending is None:
        raise RuntimeError("no rotation is under way")
    return record.pending


def _seconds(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else milliseconds // 1000
