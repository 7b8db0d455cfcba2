"""aglowctl's side of the control socket. The standard library alone: a command must have answered in a blink."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from aglowd.errors import AglowError

if TYPE_CHECKING:
    from http.client import HTTPResponse

SCHEMA = 1
"""The answers that this client can read."""
TIMEOUT_S = 15.0
SILENCE_S = 30.0
"""Real seconds without even a heartbeat after which a followed daemon counts as stuck; it sends one every ten."""


class NotRunning(AglowError):
    """Nobody answers on the socket."""


class NotPermitted(AglowError):
    """Whoever asks may not."""


class Silent(AglowError):
    """Somebody is there, but the answer did not come, or not as a whole: it may come another time."""


class Client:
    """The daemon behind that socket. Everything raises NotRunning, NotPermitted or AglowError, with a text for the operator."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, *parts: str, query: str = "", timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """The answer at that path, each part of which is quoted; `query` begins with a question mark."""
        return self._answer("GET", _target(*parts) + query, timeout_s=timeout_s)

    def post(self, *parts: str, timeout_s: float = TIMEOUT_S, **values: Any) -> dict[str, Any]:
        """The answer to a command."""
        return self._answer("POST", _target(*parts), json.dumps(values).encode(), timeout_s)

    def _answer(
        self, method: str, target: str, body: bytes | None = None, timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        with self._asked(target, timeout_s, method, body) as response:
            answer: dict[str, Any] = json.loads(response.read())
        if answer["schema"] != SCHEMA:
            raise AglowError(f"aglowd answers in schema {answer['schema']}, this aglowctl reads {SCHEMA}: update it")
        return answer

    def stream(self, *parts: str, query: Sequence[tuple[str, str | int]] = ()) -> Iterator[str]:
        """The lines of an answer as they come, without heartbeats, until the daemon ends it."""
        with self._asked(f"{_target(*parts)}?{urlencode(query)}", SILENCE_S) as response:
            while line := response.readline():
                if text := line.decode().strip():
                    yield text

    @contextmanager
    def _asked(
        self, target: str, timeout_s: float, method: str = "GET", body: bytes | None = None
    ) -> Iterator[HTTPResponse]:
        from http.client import HTTPException

        from aglowd.cli.connection import UnixConnection

        connection = UnixConnection(self.path, timeout_s)
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            if response.status != HTTPStatus.OK:
                message = json.loads(response.read())["error"]["message"]
                raise NotPermitted(message) if response.status == HTTPStatus.FORBIDDEN else AglowError(message)
            yield response
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(
                f"aglowd is not running: nobody answers on {self.path}; "
                "see `systemctl status aglowd`, or name another socket with --socket"
            ) from error
        except PermissionError as error:
            raise NotPermitted(
                f"you may not use {self.path}; ask to be added to its group: ls -l {self.path}"
            ) from error
        except TimeoutError as error:
            raise Silent(f"aglowd does not answer within {timeout_s:.0f} s; see its log") from error
        except (OSError, HTTPException, ValueError, KeyError) as error:
            raise Silent(f"{self.path} does not answer as aglowd does: {error!r}") from error
        finally:
            connection.close()


def _target(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)
