"""The ways to tell people, each against the real thing: a program, a web server, a mail server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiosmtpd.smtp import SMTP

from aglowd.clock import Clock
from aglowd.errors import OutsideError, Permanent, Temporary
from aglowd.grid.channels import MAX_SUBJECT_CHARS, CommandChannel, MailChannel, Message, WebhookChannel
from aglowd.grid.gate import Site
from aglowd.grid.http import Http
from aglowd.grid.proc import Processes
from aglowd.log import redact_text

from .conftest import Install, Serve

MESSAGE = Message("aglowd-1-2", "aglowd at here: 2 messages", "aglowd at here:\na <b> & c\n", {"id": "aglowd-1-2"})


# --- a program


async def test_a_program_gets_the_message_as_json(processes: Processes, install: Install, tmp_path: Path) -> None:
    install("tell", f"cat > {tmp_path}/told\n")
    await CommandChannel(processes, ["tell", "-x"]).send(MESSAGE)
    assert json.loads((tmp_path / "told").read_text(encoding="utf-8")) == MESSAGE.data
    assert (tmp_path / "tell.argv").read_text(encoding="utf-8") == "-x\n"


async def test_a_program_that_fails_has_not_told(processes: Processes, install: Install) -> None:
    install("tell", "echo no route >&2; exit 3\n")
    with pytest.raises(Temporary, match="tell ended with 3: no route"):
        await CommandChannel(processes, ["tell"]).send(MESSAGE)
    with pytest.raises(Temporary, match="cannot be started"):
        await CommandChannel(processes, ["no-such-program"]).send(MESSAGE)


async def test_a_program_that_does_not_listen_is_told_all_the_same(processes: Processes, install: Install) -> None:
    install("tell", "exit 0\n")
    long = Message("i", "s", "t", {"text": "x" * 200_000})
    await CommandChannel(processes, ["tell"]).send(long)


# --- a webhook

PATH = "/services/T0000/B0000/s3cretXs3cret"


async def test_a_webhook_gets_the_text_and_nothing_that_means_more_there(
    http: Http, clock: Clock, serve: Serve
) -> None:
    got: list[tuple[str, Any, str]] = []

    async def answer(request: web.Request) -> web.Response:
        got.append((request.path, await request.json(), request.headers["Idempotency-Key"]))
        return web.Response(text="ok")

    url = await serve(answer) + PATH
    await WebhookChannel(http, Site("webhook", clock), lambda: url).send(MESSAGE)
    assert got == [(PATH, {"text": "aglowd at here:\na &lt;b&gt; &amp; c\n"}, "aglowd-1-2")]


@pytest.mark.parametrize("status", [301, 404, 429, 500])
async def test_a_webhook_that_takes_nothing_is_named_without_its_address(
    http: Http, clock: Clock, serve: Serve, status: int
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=f"no such hook {request.path}")

    url = await serve(answer) + PATH
    with pytest.raises(Temporary) as caught:
        await WebhookChannel(http, Site("webhook", clock), lambda: url).send(MESSAGE)
    assert f"HTTP {status}" in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "s3cret" not in redact_text(f"POST {url}")


async def test_an_address_is_read_anew_each_time(http: Http, clock: Clock, serve: Serve) -> None:
    got: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        got.append(request.path)
        return web.Response()

    base = await serve(answer)
    paths = iter(["/first-hook", "/second-hook"])
    channel = WebhookChannel(http, Site("webhook", clock), lambda: base + next(paths))
    await channel.send(MESSAGE)
    await channel.send(MESSAGE)
    assert got == ["/first-hook", "/second-hook"]


async def test_an_address_that_is_none_is_told_without_being_shown(http: Http, clock: Clock) -> None:
    with pytest.raises(Permanent) as caught:
        await WebhookChannel(http, Site("webhook", clock), lambda: "hooks.example/s3cret").send(MESSAGE)
    assert "s3cret" not in str(caught.value)


# --- a mail


class Box:
    """What a mail server does with what it is given. `refuses`: the address to which it takes nothing."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.mails: list[tuple[str, list[str], EmailMessage]] = []

    async def handle_RCPT(  # noqa: N802 # The mail server calls it so.
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if address == self.refuses:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 # The mail server calls it so.
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, mail))
        return "250 OK"


@asynccontextmanager
async def mail_server(box: Box) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(box, hostname="mx.example"), "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


def lines_of(mail: EmailMessage) -> str:
    return str(mail.get_content()).replace("\r\n", "\n")


async def test_a_mail_arrives_at_all_its_receivers() -> None:
    box = Box()
    async with mail_server(box) as relay:
        await MailChannel(relay, "aglowd@example.org", ["a@example.org", "b@example.org"]).send(MESSAGE)
    ((sender, receivers, mail),) = box.mails
    assert sender == "aglowd@example.org"
    assert receivers == ["a@example.org", "b@example.org"]
    assert mail["Subject"] == "aglowd at here: 2 messages"
    assert mail["To"] == "a@example.org, b@example.org"
    assert mail["Message-ID"] == "<aglowd-1-2@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert lines_of(mail) == MESSAGE.text


async def test_a_long_subject_is_cut_and_letters_of_all_alphabets_arrive() -> None:
    box = Box()
    text = "Jülich schläft – 天"
    async with mail_server(box) as relay:
        await MailChannel(relay, "aglowd@example.org", ["a@example.org"]).send(
            Message("i", f"{text} {'x' * 300}", f"{text}\n", None)
        )
    ((_, _, mail),) = box.mails
    assert mail["Subject"] == f"{text} {'x' * 300}"[:MAX_SUBJECT_CHARS]
    assert lines_of(mail) == f"{text}\n"


async def test_who_sends_is_named_by_this_host_unless_configured() -> None:
    box = Box()
    async with mail_server(box) as relay:
        await MailChannel(relay, "", ["a@example.org"]).send(MESSAGE)
    assert box.mails[0][0].startswith("aglowd@")


async def test_a_relay_that_takes_nothing_is_asked_again() -> None:
    box = Box(refuses="a@example.org")
    async with mail_server(box) as relay:
        with pytest.raises(Temporary, match="no such mailbox"):
            await MailChannel(relay, "aglowd@example.org", ["a@example.org"]).send(MESSAGE)
    assert box.mails == []
    with pytest.raises(OutsideError, match=f"the mail relay {relay}"):
        await MailChannel(relay, "aglowd@example.org", ["a@example.org"]).send(MESSAGE)


async def test_a_subject_of_several_lines_is_no_header_of_its_own() -> None:
    box = Box()
    async with mail_server(box) as relay:
        with pytest.raises(Temporary):
            await MailChannel(relay, "aglowd@example.org", ["a@example.org"]).send(
                Message("i", "one\nBcc: evil@example.org", "t\n", None)
            )
    assert box.mails == []
