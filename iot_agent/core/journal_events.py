"""What the journal calls things: one message id for each kind of event (sd-journal(3), systemd.journal-fields(7)).

An id never changes. What each means and what to do about it is in packaging/iot-agent.catalog, for `journalctl -x`; a
test holds the two together. Field names start with IOT_AGENT_ so that they are ours in a journal shared with all else.
"""

from typing import Any

from iot_agent.core.record import Record

MESSAGE_IDS = {
    # the daemon
    "started": "58a1f3fa880b4402b2647ceed198efd4",
    "stopped": "ce087718e59443109bba40c04312bf20",
    "waiting": "fcbc9bef62f047e29c08bec06be13123",
    "reloaded": "3c2aa1dbfabe4f7983fe6494c749493e",
    "reload-refused": "7697235779024f539f07b558ab453102",
    "step-begun": "4533544ff432434fa4e3ebd461f84d69",
    "step-failed": "f8781f6807244d928c5bbda418552b43",
    "state-changed": "bdb721c03c1e41d8be7711c8479e1abb",
    "record-not-written": "80816395a40f40868f930c9280253f0b",
    "record-damaged": "e87abd7b63514646af4639c5b972ec0c",
    "record-rebuilt": "aadf3e10710f41658fd3bf6707ef072e",
    # the life of a certificate; these are also the words of `agentctl history`
    "introduced": "52bed931903b4b82ab8d68b5dcdf065c",
    "rotation-requested": "92288aca5e5e45739cec2642c89b3bf3",
    "rotation-cancelled": "0f02d4405db343dab3f65816c6f096e2",
    "issued": "1a37e5296b5049fd8542bc6fdfc40cf8",
    "promoted": "07d7953cb4b5463aa0e058a26a3272e4",
    "rolled-back": "1e876b6b29fb41e1bca936147bf3eecf",
    "found-on-disk": "9d1f5a0c6f0e4d5f8f3f0a4c1f6d2b7e",
    "taken-up-again": "177b414aec454e5e8cfb3ee4bf4c0ede",
    "key-dropped": "d482c78a0ab149ec8ee297f3c4070cc5",
    "retired": "70425bbf7eaf4d74821355bfe476ed9a",
}


def facts(record: Record) -> dict[str, object]:
    """Give what every event of a device tells besides itself."""
    pending = record.pending and record.pending.certificate
    return {
        "serial": record.serial,
        "state": record.state,
        "attempt": record.attempt,
        "certificate_id": record.active and record.active.certificate.certificate_id,
        "pending_certificate_id": pending and pending.certificate_id,
    }


def of(event: str, **fields: object) -> dict[str, Any]:
    """Give logging's `extra` for one event; `fields` become IOT_AGENT_<NAME>, those that are None are left out."""
    ours = {f"IOT_AGENT_{name.upper()}": str(value) for name, value in fields.items() if value is not None}
    return {"journal": {"MESSAGE_ID": MESSAGE_IDS[event], "IOT_AGENT_EVENT": event, **ours}}
