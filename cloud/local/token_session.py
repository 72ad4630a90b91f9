"""Ask the broker whether it accepts an identity whose key is on a token. The exit status is 0 if it does.

    PIN=… token_session.py HOST PORT CA CERTIFICATE CLIENT_ID MODULE TOKEN LABEL

The demo runs it with the agent's environment, which has awscrt; Python's own ssl module does not support tokens.
"""

from __future__ import annotations

import os
import queue
import sys
from pathlib import Path

from awscrt import io, mqtt5

ANSWER_LIMIT_S = 60


def main() -> int:
    """Connect once."""
    host, port, ca, certificate, client_id, module, token, label = sys.argv[1:]
    options = io.TlsContextOptions.create_client_with_mtls_pkcs11(
        pkcs11_lib=io.Pkcs11Lib(file=module, behavior=io.Pkcs11Lib.InitializeFinalizeBehavior.STRICT),
        user_pin=os.environ["PIN"],
        token_label=token,
        private_key_label=label,
        cert_file_contents=Path(certificate).read_bytes(),
    )
    options.override_default_trust_store_from_path(ca_filepath=ca)
    answers: queue.SimpleQueue[str] = queue.SimpleQueue()
    client = mqtt5.Client(
        mqtt5.ClientOptions(
            host_name=host,
            port=int(port),
            tls_ctx=io.ClientTlsContext(options),
            connect_options=mqtt5.ConnectPacket(client_id=client_id),
            on_lifecycle_event_connection_success_fn=lambda _: answers.put("accepted"),
            on_lifecycle_event_connection_failure_fn=lambda _: answers.put("refused"),
        )
    )
    client.start()
    try:
        return 0 if answers.get(timeout=ANSWER_LIMIT_S) == "accepted" else 1
    finally:
        client.stop()


if __name__ == "__main__":
    sys.exit(main())
