"""What the tests of the LLM primitives share: clients that are made quickly."""

from __future__ import annotations

from pathlib import Path

import certifi
import pytest

END = "-----END CERTIFICATE-----\n"


@pytest.fixture(scope="session")
def one_certificate(tmp_path_factory):
    """Write one certificate authority to a file.

    Reading all that there are takes most of the time of making a client.
    """
    first = Path(certifi.where()).read_text("utf-8").partition(END)
    path = tmp_path_factory.mktemp("certificates") / "one.pem"
    path.write_text("".join(first[:2]), "utf-8")
    return path


@pytest.fixture(autouse=True)
def environment(monkeypatch, one_certificate):
    """Leave out what this machine says of providers, and most of its certificates."""
    for vendor in ("OPENAI", "ANTHROPIC"):
        for name in ("API_KEY", "BASE_URL", "MODEL"):
            monkeypatch.delenv(f"{vendor}_{name}", raising=False)
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(one_certificate))
