"""The ways to tell people: a program, a webhook, a mail. Telling changes nothing in the world that is worked on.

What must stay true: the address of a webhook is a secret, for whoever knows it can write there; a message that may have
arrived is sent again rather than lost, under the same id.
"""

from __future__ import annotations

import html
import socket
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from typing import Protocol
from urllib.parse import urlsplit

import aiosmtplib
import msgspec
from msgspec import Struct

from aglowd.errors import OutsideError, Permanent, Temporary
from aglowd.grid.gate import Site
from aglowd.grid.http import Http
from aglowd.grid.proc import Processes
from aglowd.grid.words import quoted
from aglowd.log import register_secret
from aglowd.model import Json

TIMEOUT_S = 60.0
"""Real seconds for which one message may be on its way."""
MAX_SUBJECT_CHARS = 120


class Message(Struct, frozen=True):
    """What is told at once: its id, its first line, all of its text, and the same for programs."""

    id: str
    subject: str
    text: str
    data: Json


class Channel(Protocol):
    """A way to tell people. Raises OutsideError when nobody can tell that it arrived."""

    async def send(self, message: Message) -> None:
        """Tell it once."""


class CommandChannel:
    """A program that gets the message as JSON on its standard input, and ends with 0 when it has taken it."""

    def __init__(self, processes: Processes, argv: Sequence[str]) -> None:
        self._processes = processes
        self._argv = tuple(argv)

    async def send(self, message: Message) -> None:
        ended = await self._processes.run(
            self._argv, write=False, timeout_s=TIMEOUT_S, stdin=msgspec.json.encode(message.data)
        )
        if ended.rc != 0:
            raise Temporary(f"{self._argv[0]} ended with {ended.rc}: {quoted(ended.stderr or ended.stdout)}")


class WebhookChannel:
    """A webhook of Slack or Mattermost: `{"text": …}`. `address` is asked each time, for it may have been renewed."""

    def __init__(self, http: Http, site: Site, address: Callable[[], str]) -> None:
        self._http = http
        self._site = site
        self._address = address

    async def send(self, message: Message) -> None:
        url = self._address()
        parts = urlsplit(url)
        for secret in (url, parts.path, parts.path.strip("/"), parts.query):
            register_secret(secret)
        if parts.scheme not in ("http", "https"):
            raise Permanent("the address of the webhook is no http:// or https:// URL")
        try:
            await self._http.request(
                "POST",
                url,
                site=self._site,
                write=False,
                # Both take & < > as the beginning of something of their own.
                json={"text": html.escape(message.text, quote=False)},
                headers={"Idempotency-Key": message.id},
                timeout_s=TIMEOUT_S,
            )
        except OutsideError as error:
            raise Temporary(f"the webhook at {parts.hostname}: {quoted(str(error))}") from None


class MailChannel:
    """A mail by the relay at `host:port`, with TLS if it offers any."""

    def __init__(self, relay: str, sender: str, receivers: Sequence[str]) -> None:
        self._host, _, port = relay.rpartition(":")
        self._port = int(port)
        self._sender = sender or f"aglowd@{socket.getfqdn()}"
        self._receivers = list(receivers)

    async def send(self, message: Message) -> None:
        try:
            # As relays do among themselves: who it is nobody asks, but nobody else can read along.
            await aiosmtplib.send(
                self._mail(message), hostname=self._host, port=self._port, timeout=TIMEOUT_S, validate_certs=False
            )
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            said = quoted(str(error) or type(error).__name__)
            raise Temporary(f"the mail relay {self._host}:{self._port}: {said}") from error

    def _mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = self._sender
        mail["To"] = ", ".join(self._receivers)
        mail["Subject"] = message.subject[:MAX_SUBJECT_CHARS]
        mail["Message-ID"] = f"<{message.id}@{self._sender.rpartition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text)
        return mail
