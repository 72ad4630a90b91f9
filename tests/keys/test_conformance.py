"""One suite for every key backend, each with EC P-256 and RSA-2048: what the `KeyStore` port promises."""

import subprocess
from dataclasses import asdict

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from iot_agent.core.errors import Fatal
from iot_agent.core.record import Retired
from iot_agent.worker import steps
from tests.harness import PATIENCE
from tests.keys.bench import FIRST, SECOND, THIRD, Bench, connect, in_a_process
from tests.keys.broker import MutualTls
from tests.simulator.authority import Authority
from tests.simulator.fuse import Crash, Fuse

WITH_EC = ("file ec-p256", "softhsm ec-p256", "tpm ec-p256")
SHOWN = {"ec-p256": "NIST CURVE: P-256", "rsa-2048": "Public-Key: (2048 bit)"}


def openssl(*arguments: str, given: str) -> str:
    done = subprocess.run(("openssl", *arguments), input=given, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_openssl_verifies_the_request_of_a_new_key(bench: Bench) -> None:
    bench.keys.generate(FIRST, bench.algorithm)
    shown = openssl("req", "-verify", "-noout", "-text", "-subject", given=bench.keys.csr(FIRST, "SN-0001"))
    assert "verify OK" in shown
    assert "subject=CN = SN-0001\n" in shown
    assert SHOWN[bench.algorithm] in shown


def test_the_public_key_is_that_of_the_request(bench: Bench) -> None:
    bench.keys.generate(FIRST, bench.algorithm)
    request = x509.load_pem_x509_csr(bench.keys.csr(FIRST, "SN-0001").encode())
    of_request = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert bench.keys.public_key(FIRST) == of_request


def test_a_complete_key_is_kept_when_it_is_asked_for_again(bench: Bench) -> None:
    bench.keys.generate(FIRST, bench.algorithm)
    before = bench.keys.public_key(FIRST)
    bench.keys.generate(FIRST, bench.algorithm)
    assert bench.keys.public_key(FIRST) == before


def test_a_removed_key_is_gone_and_no_other(bench: Bench) -> None:
    bench.keys.generate(FIRST, bench.algorithm)
    bench.keys.generate(SECOND, bench.algorithm)
    assert bench.keys.public_key(FIRST) != bench.keys.public_key(SECOND)
    assert bench.keys.labels() == {FIRST, SECOND}
    bench.keys.remove(FIRST)
    bench.keys.remove(FIRST)
    with pytest.raises(Fatal, match=FIRST) as missing:
        bench.keys.csr(FIRST, "SN-0001")
    assert missing.value.code == "key-store"
    assert bench.keys.csr(SECOND, "SN-0001")


def test_what_the_record_does_not_keep_is_retired(bench: Bench) -> None:
    for label in (FIRST, SECOND, THIRD):
        bench.make(label)
    outcome = steps.retire(bench.in_force(SECOND), 0, bench.context())
    assert outcome == Retired((FIRST, THIRD))
    assert bench.keys.labels() == bench.identities.labels() == {SECOND}
    assert bench.keys.csr(SECOND, "SN-0001")


def test_it_opens_a_session_over_mutual_tls(bench: Bench, devices: Authority, broker: MutualTls) -> None:
    bench.make(FIRST)
    certificate = x509.load_pem_x509_certificate(bench.certify(FIRST, devices).read_bytes())
    told = connect(bench, FIRST, broker)
    assert (told["error"], told["message"]) == ("", "")
    assert told["libraries"] == "awscrt", "python-pkcs11 beside awscrt is a segmentation fault"
    assert int(told["memory"]) < 75, "the limit of a worker's memory must leave room for newer libraries"
    version, shown = broker.sessions.get(timeout=PATIENCE)
    assert shown == certificate.public_bytes(Encoding.DER)
    assert version == ("TLSv1.3" if bench.token is None else "TLSv1.2")


@pytest.mark.parametrize("bench", ["file ec-p256"], indirect=True)
@pytest.mark.parametrize("spoiled", ["key.pem", "certificate.pem"])
def test_a_damaged_file_is_no_reason_to_try_again_soon(
    bench: Bench, devices: Authority, broker: MutualTls, spoiled: str
) -> None:
    bench.make(FIRST)
    bench.certify(FIRST, devices)
    (bench.state / "identities" / FIRST / spoiled).write_text("damaged")
    told = connect(bench, FIRST, broker)
    assert told["error"] == "bad-credentials"
    assert spoiled in told["message"]


def test_two_processes_that_make_one_key_make_one(bench: Bench) -> None:
    token = None if bench.token is None else asdict(bench.token)
    asked = {"state": str(bench.state), "token": token, "label": FIRST, "algorithm": bench.algorithm}
    for process in [in_a_process("generate", asked) for _ in range(2)]:
        _, complaint = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, complaint
    assert bench.keys.labels() == {FIRST}
    if bench.local is not None:
        assert bench.objects() == [FIRST, FIRST], "a private and a public half"
    assert bench.keys.csr(FIRST, "SN-0001")


@pytest.mark.parametrize("bench", WITH_EC, indirect=True)
def test_a_key_is_made_although_the_power_goes_before_each_effect(bench: Bench) -> None:
    """The effects that this process has on disk; those on a token itself are test_token.py's."""

    def make(label: str, fuse: Fuse) -> None:
        with fuse.on_disk(str(bench.state)):
            bench.keys.generate(label, bench.algorithm)

    counting = Fuse()
    make(FIRST, counting)
    crashes = counting.count
    assert crashes > 5
    for at in range(1, crashes + 1):
        label = f"{SECOND}{at:02x}"
        with pytest.raises(Crash):
            make(label, Fuse(lambda count, _name, at=at: count == at))  # type: ignore[misc]  # binds the loop's value
        make(label, Fuse())
    assert len(bench.keys.labels()) == crashes + 1
    assert bench.keys.csr(label, "SN-0001")
