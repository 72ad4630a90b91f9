"""What a check-in over the active identity shows: credentials, session, policy, and that the stack answers. Pure.

A device's policy allows it to publish on the agent's three topics and to subscribe to their answers, and nothing else,
so it cannot receive its own message. Therefore the doctor tries a check-in: the stack answers it, and it changes
nothing that the agent depends on.
"""

from collections.abc import Iterator

from iot_agent.core.record import CheckedIn, Failed, Outcome
from iot_agent.doctor.findings import Finding, error, fine, skipped, warning


def judge(outcome: Outcome, client_id: str) -> Iterator[Finding]:
    """Judge the outcome of a check-in."""
    if isinstance(outcome, CheckedIn):
        said = f"connected as {client_id}, subscribed, published a check-in, and received the answer"
        yield fine("cloud.check-in", said)
    elif isinstance(outcome, Failed):
        yield error("cloud.check-in", f"a check-in as {client_id} failed: {outcome.message}", outcome.remedy)
    else:
        raise RuntimeError(f"{outcome} is not the outcome of a check-in")  # noqa: TRY004 - a bug of ours, not wrong data


def off() -> Finding:
    """Report that `check_in.every` is off."""
    return skipped("cloud.check-in", "not tried: check_in.every is off in agent.yaml")


def unanswered(client_id: str) -> Finding:
    """Report a check-in in a cloud that knows none: it has answered no request in a way that such a cloud would."""
    said = f"connected as {client_id}, subscribed and published; this cloud answers no check-in, and none is needed"
    return fine("cloud.check-in", said)


def busy() -> Finding:
    """Report that the daemon holds the identity lock."""
    return warning(
        "cloud.check-in",
        "not tried: the agent is in the middle of a step, and a second session would close the session of that step",
        "Run agentctl doctor again in a minute; agentctl status shows the step.",
    )


def nothing_yet() -> Finding:
    """Report that there is no active identity."""
    return skipped("cloud.check-in", "not tried: the device has no certificate of its own yet")


def unreachable() -> Finding:
    """Report that the network checks have failed."""
    return skipped("cloud.check-in", "not tried: the endpoint cannot be reached or trusted")
