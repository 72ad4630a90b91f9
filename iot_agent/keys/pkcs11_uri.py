"""A private key on a token, written as a PKCS #11 URI (RFC 7512), which OpenSSL, GnuTLS and curl understand too. Pure.

    pkcs11:token=LABEL;object=LABEL;type=private?module-path=/PATH/MODULE.so&pin-source=file:/PATH

`pin-source` may also be `credential:NAME`, a systemd credential (an extension of ours).
"""

from urllib.parse import quote, unquote

from iot_agent.core.settings import Token, TokenKey

SCHEME = "pkcs11:"
PIN_SOURCES = ("file:/", "credential:")
PATH = ("token", "object")
QUERY = ("module-path", "pin-source")


def write(key: TokenKey) -> str:
    """Give the URI of a key."""
    token = key.token
    path = f"token={_quoted(token.label)};object={_quoted(key.label)};type=private"
    return f"{SCHEME}{path}?module-path={_quoted(token.module)}&pin-source={_quoted(token.pin_source)}"


def read(uri: str, default: Token | None = None) -> TokenKey:
    """Read a URI; module, token and PIN are those of `default` where the URI has none. Raises `ValueError`."""
    if not uri.startswith(SCHEME):
        raise ValueError(f"{uri!r} does not begin with {SCHEME}")
    path, _, query = uri.removeprefix(SCHEME).partition("?")
    given = _attributes(path, ";", (*PATH, "type")) | _attributes(query, "&", QUERY)
    if given.pop("type", "private") != "private":
        raise ValueError(f"{uri!r} is not of type=private")
    if default is not None:
        given = {"token": default.label, "module-path": default.module, "pin-source": default.pin_source} | given
    missing = [name for name in (*PATH, *QUERY) if not given.get(name)]
    if missing:
        raise ValueError(f"{uri!r} does not say {', '.join(missing)}")
    if not given["pin-source"].startswith(PIN_SOURCES):
        raise ValueError(f"{uri!r} has a pin-source that is neither file:/PATH nor credential:NAME")
    return TokenKey(Token(given["module-path"], given["token"], given["pin-source"]), given["object"])


def _attributes(text: str, separator: str, known: tuple[str, ...]) -> dict[str, str]:
    """Split a part. An unknown attribute is refused: without it, the URI might name another key."""
    pairs = [part.partition("=")[::2] for part in text.split(separator) if part]
    names = [name for name, _ in pairs]
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) != len(names):
        raise ValueError(f"{text!r} may hold each of {', '.join(known)} once, and nothing else")
    values = {name: unquote(value, errors="strict") for name, value in pairs}
    if not all(map(str.isprintable, values.values())):  # a module, which is C, would stop reading at a NUL
        raise ValueError(f"{text!r} holds characters that cannot be printed")
    return values


def _quoted(text: str) -> str:
    return quote(text, safe="/:")
