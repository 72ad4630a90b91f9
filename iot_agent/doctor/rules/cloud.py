"""What a check-in over the identity in force says: credentials, session, policy, and the stack behind it. Pure.

A device's policy lets it publish to nothing but the agent's three topics, and subscribe to nothing but their answers:
there is no topic on which it could hear itself. So what is tried is a check-in, which the stack answers and which
changes nothing that the agent depends on.
"""

from collections.abc import Iterator

from iot_agent.core.record import CheckedIn, Failed, Outcome
from iot_agent.doctor.findings import Finding, error, fine, skipped, warning


def judge(outcome: Outcome, client_id: str) -> Iterator[Finding]:
    """Judge the outcome of a check-in."""
    if isinstance(outcome, CheckedIn):
        said = f"connected as {client_id}, subscribed, published a check-in, and was answered"
        yield fine("cloud.check-in", said)
    elif isinstance(outcome, Failed):
        yield error("cloud.check-in", f"a check-in as {client_id} failed: {outcome.message}", outcome.remedy)
    else:
        raise RuntimeError(f"{outcome} is not the outcome of a check-in")  # noqa: TRY004 - our bug, not a type's


def busy() -> Finding:
    """Say that the daemon's own step came first."""
    return warning(
        "cloud.check-in",
        "not tried: the agent is in the middle of a step, and a second session would throw it out",
        "Run agentctl doctor again in a minute; agentctl status shows the step.",
    )


def nothing_yet() -> Finding:
    """Say that the first session is the daemon's to make."""
    return skipped(
        "cloud.check-in", "not tried: the device has no certificate of its own yet; introducing it is the daemon's"
    )


def unreachable() -> Finding:
    """Say that there is no way there."""
    return skipped("cloud.check-in", "not tried: the endpoint cannot be reached or trusted")
