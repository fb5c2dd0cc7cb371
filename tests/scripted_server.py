"""A stand-in for vLLM whose every answer is scripted: real sockets, an event loop in a thread of its own."""

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Said:
    """An HTTP response. `drop` closes the connection after so many bytes of it; `delay` is in seconds."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: int | None = None


def completion(text: str | None, finish: str | None = "stop", **other: Any) -> Said:
    """A chat completion as vLLM sends it."""
    loaded = {
        "id": "x",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
    }
    return Said(json.dumps(loaded).encode(), **other)


def rewritten(caption: str, *queries: str, **other: Any) -> Said:
    """A well-formed reply; without queries the caption is the only one."""
    return completion(json.dumps({"caption": caption, "queries": list(queries or (caption,))}), **other)


def caption_of(request: Mapping[str, Any]) -> str:
    """The caption that a request asks about."""
    content = request["messages"][-1]["content"]
    text: str = content if isinstance(content, str) else content[-1]["text"]
    return text.partition("\nCaption: ")[2].partition("\nRefused: ")[0]


def echo(request: Mapping[str, Any], _number: int) -> Said:
    """The script of an honest if lazy model."""
    return rewritten(caption_of(request))


Script = Callable[[Mapping[str, Any], int], Said]


class ScriptedServer:
    """Answers the n-th chat request (from 0) with script(request, n) until it is stopped; may be started again."""

    def __init__(self, script: Script = echo) -> None:
        self.script = script
        self.requests: list[dict[str, Any]] = []
        self.probes = 0
        self.connections = 0
        self.at_once = 0
        self.most_at_once = 0
        self.health = 200
        self.metrics = ""
        self.metrics_status = 200
        self.models: tuple[str, ...] = ()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "ScriptedServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", self.port))
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def stop(self) -> None:
        """Stop as a killed process does: the port is closed, and every connection with it."""
        if not self._loop.is_running():
            return
        asyncio.run_coroutine_threadsafe(self._kill(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _kill(self) -> None:
        self._server.close()
        await asyncio.sleep(0.01)
        await self._turns()  # a connection that is half made would be left open
        for writer in list(self._open):
            writer.transport.abort()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._turns()  # an aborted transport is closed a turn later

    @staticmethod
    async def _turns() -> None:
        """Let the loop go round until what was begun has ended; how long a turn takes depends on the machine."""
        for _ in range(20):
            await asyncio.sleep(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        self._serving.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) is not None:
                lines = head.decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if not await self._answer(lines[0].split()[1], body, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _answer(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> bool:
        if path == "/health":
            self.probes += 1
            said = Said(status=self.health)
        elif path == "/metrics":
            said = Said(self.metrics.encode(), self.metrics_status, headers={"Content-Type": "text/plain"})
        elif path == "/v1/models":
            said = Said(json.dumps({"data": [{"id": name} for name in self.models]}).encode())
        else:
            request = json.loads(body.decode("utf-8", "replace"))
            self.requests.append(request)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                said = self.script(request, len(self.requests) - 1)
                await asyncio.sleep(said.delay)
            finally:
                self.at_once -= 1
        headers = {"Content-Type": "application/json", "Content-Length": str(len(said.body)), **said.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        data = f"HTTP/1.1 {said.status} X\r\n{lines}\r\n".encode() + said.body
        writer.write(data[: said.drop])
        await writer.drain()
        return said.drop is None
