"""Each identity: complete, matching and valid; and `current` points at the active one. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from iot_agent.core.errors import REMEDIES, Code
from iot_agent.core.record import Record
from iot_agent.doctor.findings import Finding, error, fine, warning

ODD = "It works today. Correct this in the CA that issues, before a library refuses such certificates."
RESTART = "Restart the agent (systemctl restart iot-agent): it repairs the link when it starts. Nothing is lost."


@dataclass(frozen=True)
class IdentityFacts:
    """One identity: its role (bootstrap, active, pending, unconfirmed), and what its certificate says.

    `problem`: why the certificate cannot be read. `flaws`: sentences about the certificate ("it is ..."); `odd`: one
    about what breaks a rule of X.509 but works. Times are seconds since the epoch.
    """

    name: str
    role: str
    problem: str | None = None
    certificate_id: str = ""
    not_before: int = 0
    not_after: int = 0
    flaws: tuple[str, ...] = ()
    odd: str | None = None


def judge(seen: list[IdentityFacts], record: Record, now: float) -> Iterator[Finding]:
    """Judge each identity."""
    for identity in seen:
        yield from _judge_one(identity, record, now)


def _judge_one(identity: IdentityFacts, record: Record, now: float) -> Iterator[Finding]:
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
        wrong.append(error(check, early, "Set the clock. If it is right, the clock of the issuer is wrong."))
    if identity.odd is not None:
        wrong.append(warning(check, f"the certificate of {identity.name}: {identity.odd}", ODD))
    yield from wrong or [fine(check, f"{identity.name}: key and certificate belong together")]


def _remedy(identity: IdentityFacts, record: Record) -> str:
    if identity.role == "bootstrap":
        return REMEDIES[Code.BAD_CREDENTIALS] + (
            "" if record.active is None else " The device does not need it while its own certificate is accepted."
        )
    if identity.role == "active":
        return (
            "Delete nothing. If the cloud refuses this identity, the agent enrols again with the bootstrap identity; "
            "for that, an operator must readmit the device."
        )
    return "Nothing: if this identity cannot be proven, the agent gives it up by itself. agentctl status shows more."


def judge_current(target: str | None, resolves: bool, record: Record) -> Finding:  # noqa: FBT001 - a fact, not a switch
    """Judge the link `current`: `target` is the label it names, None if there is no link."""
    expected = None if record.active is None else record.active.label
    if target != expected:
        named, meant = target or "nothing", expected or "nothing yet"
        return error("identity.current", f"current points at {named}; the active identity is {meant}", RESTART)
    if target is not None and not resolves:
        return error("identity.current", f"current points at {target}, which does not exist", RESTART)
    return fine("identity.current", "no identity is active yet" if target is None else f"current points at {target}")


def judge_record(serial: str, configured: str, damage: str | None, kept_bad: list[str]) -> Iterator[Finding]:
    """Judge the record itself: readable, of this device; `kept_bad` are damaged records that the daemon has kept."""
    if damage is not None:
        yield error(
            "record",
            damage,
            "Restart the agent: it uses the previous record, or makes a new one from the identities on disk.",
        )
    elif serial != configured:
        yield error(
            "record",
            f"the state belongs to serial {serial}; the configuration says {configured}",
            "If this device is to have a new serial, move the state directory away. Never copy it from another device.",
        )
    else:
        yield fine("record", f"complete, of serial {serial}")
    if kept_bad:
        yield warning(
            "record.bad",
            f"a damaged record was found and kept: {', '.join(kept_bad)}",
            "The agent has recovered. Check whether the disk is failing, then remove the file.",
        )
