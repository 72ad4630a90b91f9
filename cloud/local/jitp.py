"""Just-in-time provisioning, the step that the emulator leaves out.

IoT Core, having registered a certificate of an auto-registering CA as PENDING_ACTIVATION and published the
`registered` event, runs the CA's registration template: create the thing, attach the policy, activate the certificate
(developer guide, "Just-in-time provisioning"). The emulator stops at the event. Here the same template is run by the
emulator's own fleet provisioning code, with its role's permissions enforced, on parameters from the certificate's
subject.

As on AWS, the template takes some time: the event may be handled before it is done, and a device that reconnects
immediately is disconnected again. And a certificate whose subject lacks a parameter that the template declares stays
PENDING_ACTIVATION.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

LOG = logging.getLogger("jitp")
PREFIX = "AWS::IoT::Certificate::"
SUBJECT_PARAMETERS = {
    NameOID.COUNTRY_NAME: "Country",
    NameOID.ORGANIZATION_NAME: "Organization",
    NameOID.ORGANIZATIONAL_UNIT_NAME: "OrganizationalUnit",
    NameOID.DN_QUALIFIER: "DistinguishedNameQualifier",
    NameOID.STATE_OR_PROVINCE_NAME: "StateName",
    NameOID.COMMON_NAME: "CommonName",
    NameOID.SERIAL_NUMBER: "SerialNumber",
}


def install(iot: Any, responses: Any, delay_s: float) -> None:  # noqa: ANN401 - two untyped modules
    """Make the emulator, given its modules `iot` and `responses`, run the template `delay_s` after each event."""
    publish = iot._publish_certificate_registered  # noqa: SLF001 - the one function that publishes a registration
    running: set[asyncio.Task[None]] = set()

    async def publish_then_provision(account: str, region: str, certificate: dict[str, Any], *event: object) -> None:
        await publish(account, region, certificate, *event)
        task = asyncio.create_task(provision(account, region, certificate["certificateId"]))
        running.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(running.discard)

    async def provision(account: str, region: str, certificate_id: str) -> None:
        await asyncio.sleep(delay_s)
        with responses.request_scope(account, region):
            try:
                thing = await _run_template(iot, certificate_id)
                LOG.info("provisioned %s with certificate %s", thing, certificate_id)
            except Exception as error:  # noqa: BLE001 - as on AWS it stays PENDING_ACTIVATION, without a message
                reason = error.reply if hasattr(error, "reply") else repr(error)
                LOG.warning("certificate %s stays PENDING_ACTIVATION: %s", certificate_id, reason)

    iot._publish_certificate_registered = publish_then_provision  # noqa: SLF001


async def _run_template(iot: Any, certificate_id: str) -> str | None:  # noqa: ANN401 - an untyped module
    certificate = iot._certificates[certificate_id]  # noqa: SLF001 - the emulator offers no public way
    authority = iot._ca_certificates[certificate["caCertificateId"]]  # noqa: SLF001
    template = iot._provisioning_templates[authority["registrationConfig"]["templateName"]]  # noqa: SLF001
    if template["type"] != "JITP" or not template["enabled"]:
        raise ValueError(f"template {template['templateName']} is not an enabled template of type JITP")
    parameters = subject_parameters(certificate["certificatePem"])
    if missing := _declared(iot._provisioning_template_body(template)) - parameters.keys():  # noqa: SLF001
        raise ValueError(f"the subject has no {', '.join(sorted(missing))}")
    plan = iot._provisioning_plan(template, parameters, certificate_id)  # noqa: SLF001
    thing: str | None = await iot._apply_provisioning_plan(plan, certificate, template["provisioningRoleArn"])  # noqa: SLF001
    return thing


def subject_parameters(certificate_pem: str) -> dict[str, str]:
    """Return the template parameters that the certificate's subject gives."""
    subject = x509.load_pem_x509_certificate(certificate_pem.encode()).subject
    return {
        PREFIX + name: str(attributes[0].value)
        for oid, name in SUBJECT_PARAMETERS.items()
        if (attributes := subject.get_attributes_for_oid(oid))
    }


def _declared(body: str) -> set[str]:
    """Return the parameters which must come from the certificate: declared, without a default, and not its own id."""
    declared = json.loads(body).get("Parameters", {})
    return {name for name, spec in declared.items() if "Default" not in spec and name != PREFIX + "Id"}
