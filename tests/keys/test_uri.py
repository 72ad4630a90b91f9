"""PKCS #11 URIs: written and read back, shared with other programs, refused when they say something else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iot_agent.core.settings import Token, TokenKey
from iot_agent.keys import pkcs11_uri

TOKEN = Token("/usr/lib/module.so", "fleet", "file:/etc/iot-agent/token.pin")
WORDS = st.text(min_size=1).filter(lambda text: text.isprintable())


def test_it_is_written_as_rfc_7512_says() -> None:
    assert pkcs11_uri.write(TokenKey(TOKEN, "iot-agent-1")) == (
        "pkcs11:token=fleet;object=iot-agent-1;type=private"
        "?module-path=/usr/lib/module.so&pin-source=file:/etc/iot-agent/token.pin"
    )


@given(WORDS, WORDS, WORDS, WORDS)
def test_whatever_is_written_is_read_back(module: str, token: str, label: str, path: str) -> None:
    key = TokenKey(Token(module, token, f"file:/{path}"), label)
    assert pkcs11_uri.read(pkcs11_uri.write(key)) == key


def test_what_is_left_out_comes_from_the_default() -> None:
    assert pkcs11_uri.read("pkcs11:object=vendor", TOKEN) == TokenKey(TOKEN, "vendor")
    assert pkcs11_uri.read("pkcs11:token=other;object=vendor", TOKEN).token.label == "other"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("/etc/key.pem", "does not begin with pkcs11:"),
        ("pkcs11:object=a", "does not say token, module-path, pin-source"),
        ("pkcs11:object=a;type=cert", "is not of type=private"),
        ("pkcs11:object=a;object=b", "once, and nothing else"),
        ("pkcs11:object=a;id=%01", "once, and nothing else"),
        ("pkcs11:token=t;object=a?module-path=/m&pin-value=1234", "once, and nothing else"),
        ("pkcs11:token=t;object=a?module-path=/m&pin-source=%7Cecho", "neither file:/PATH nor credential:NAME"),
        ("pkcs11:token=%ff;object=a", "can't decode"),
    ],
)
def test_what_is_not_the_uri_of_a_private_key_of_ours_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        pkcs11_uri.read(text)
