"""docs/operations.md, "Backup and restore": a record from before the last renewal, or none, and the way back."""

from tests.end_to_end.conftest import Stack
from tests.end_to_end.test_fleet import fleet
from tests.end_to_end.test_life import check_rest
from tests.harness import Agent, wait_for


def answered(agent: Agent, words: str) -> bool:
    error = agent.status()["last_error"] or {}
    return error.get("code") in ("cloud-refused", "not-allowed") and words in error["message"]


def aboard(stack: Stack, agent: Agent) -> str:
    with (agent.directory / "agent.yaml").open("a") as configuration:
        configuration.write("check_in: {every: 2s}\n")
    agent.start()
    wait_for(lambda: agent.settled(1))
    return check_rest(stack, agent)


def test_a_record_from_before_the_last_renewal(stack: Stack, agent: Agent) -> None:
    aboard(stack, agent)
    older = stack.item(agent.serial)
    assert agent.agentctl("rotate").returncode == 0
    wait_for(lambda: agent.settled(2))
    orphan = check_rest(stack, agent)
    stack.table.put_item(Item={**older, "version": stack.item(agent.serial)["version"] + 1})
    wait_for(lambda: answered(agent, "wrong-principal"))

    assert fleet(stack, "readmit", agent.serial, "--for", "1h").returncode == 0
    report = fleet(stack, "show", agent.serial)
    assert f"{orphan[:16]}: ACTIVE and attached to the thing, but not in the record: an orphan" in report.stdout
    stack.iot.update_certificate(certificateId=orphan, newStatus="INACTIVE")
    assert agent.agentctl("rotate").returncode == 0
    wait_for(lambda: agent.settled(3), 60)
    assert check_rest(stack, agent) != orphan
    assert stack.status_of(orphan) == "INACTIVE"


def test_a_record_that_is_lost(stack: Stack, agent: Agent) -> None:
    orphan = aboard(stack, agent)
    vendor = stack.item(agent.serial)["vendor_certificate_id"]
    stack.table.delete_item(Key={"serial": agent.serial})
    wait_for(lambda: answered(agent, "not-allowed"))

    assert fleet(stack, "allow", agent.serial).returncode == 0
    stack.iot.update_certificate(certificateId=orphan, newStatus="INACTIVE")
    stack.iot.delete_certificate(certificateId=vendor)
    assert agent.agentctl("rotate").returncode == 0
    wait_for(lambda: agent.settled(2), 60)
    assert check_rest(stack, agent) != orphan
    assert stack.item(agent.serial)["vendor_certificate_id"] == vendor
