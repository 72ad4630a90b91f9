"""Each identity complete and matching, and `current` pointing at the one in force. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from iot_agent.core.errors import REMEDIES, Code
from iot_agent.core.record import Record
from iot_agent.doctor.findings import Finding, error, fine, warning

ODD = "It works today. Have the CA that issues give numbers as they must be, before a library refuses to read this."
RESTART = "Restart the agent (systemctl restart iot-agent): it repairs the link at start; nothing is lost meanwhile."


@dataclass(frozen=True)
class Seen:
    """One identity: its role (bootstrap, active, pending, unconfirmed) and, where its certificate could be read, that.

    `flaws` are sentences about "it", the certificate; `odd` is one about what works in spite of the rules. Times are
    seconds since the epoch.
    """

    name: str
    role: str
    problem: str | None = None
    certificate_id: str = ""
    not_before: int = 0
    not_after: int = 0
    flaws: tuple[str, ...] = ()
    odd: str | None = None


def judge(seen: list[Seen], record: Record, now: float) -> Iterator[Finding]:
    """Judge each identity that counts."""
    for identity in seen:
        yield from _judge_one(identity, record, now)


def _judge_one(identity: Seen, record: Record, now: float) -> Iterator[Finding]:
    check = f"identity.{identity.role}"
    again = _remedy(identity, record)
    if identity.problem is not None:
        yield error(check, f"{identity.name}: {identity.problem}", again)
        return
    wrong = [error(check, f"the certificate of {identity.name}: {flaw}", again) for flaw in identity.flaws]
    recorded = record.active if identity.role == "active" else None
    if recorded is not None and recorded.certificate.certificate_id != identity.certificate_id:
        wrong.append(error(check, f"the certificate of {identity.name} is not the one in the record", again))
    needed = identity.role != "bootstrap" or record.active is None
    if needed and now >= identity.not_after:
        wrong.append(error(check, f"the certificate of {identity.name} has expired by this clock", again))
    if needed and now < identity.not_before:
        early = f"the certificate of {identity.name} is not valid yet by this clock"
        wrong.append(error(check, early, "Set the clock; if it is right, the issuer's is not."))
    if identity.odd is not None:
        wrong.append(warning(check, f"the certificate of {identity.name}: {identity.odd}", ODD))
    yield from wrong or [fine(check, f"{identity.name}: key and certificate belong together")]


def _remedy(identity: Seen, record: Record) -> str:
    if identity.role == "bootstrap":
        return REMEDIES[Code.BAD_CREDENTIALS] + (
            "" if record.active is None else " The device does not need it while its own certificate is accepted."
        )
    if identity.role == "active":
        return (
            "Keep what is there. If the cloud refuses it, the agent asks again over the bootstrap identity; an "
            "operator must readmit the device for that."
        )
    return "The agent gives it up by itself when it cannot be proven; agentctl status shows how far it is."


def judge_current(target: str | None, resolves: bool, record: Record) -> Finding:  # noqa: FBT001 - a fact, not a switch
    """Judge the link `current`: `target` is the label it names, None if there is no link."""
    expected = None if record.active is None else record.active.label
    if target != expected:
        named, meant = target or "nothing", expected or "nothing yet"
        return error("identity.current", f"current points at {named}; in force is {meant}", RESTART)
    if target is not None and not resolves:
        return error("identity.current", f"current points at {target}, which is not there", RESTART)
    return fine("identity.current", "nothing is in force yet" if target is None else f"current points at {target}")


def judge_record(serial: str, configured: str, damage: str | None, kept_bad: list[str]) -> Iterator[Finding]:
    """Judge the record itself: readable, of this device; `kept_bad` are damaged ones that were put aside."""
    if damage is not None:
        yield error(
            "record",
            damage,
            "Restart the agent: it falls back to the record before, or rebuilds one from the identities on disk.",
        )
    elif serial != configured:
        yield error(
            "record",
            f"the state belongs to serial {serial}, the configuration says {configured}",
            "If the device was re-provisioned on purpose, move the state directory away; a copied image must not "
            "keep it.",
        )
    else:
        yield fine("record", f"of serial {serial}, whole")
    if kept_bad:
        yield warning(
            "record.bad",
            f"a damaged record was put aside: {', '.join(kept_bad)}",
            "The agent has recovered from it. Look at the disk's health, then remove the file.",
        )
