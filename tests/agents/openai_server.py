"""A small server that speaks OpenAI's chat completions (streamed) and background responses, on a free loopback port."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server:
    """`turns`: what to answer, one after the other: words, a list of `(id, tool, args)`, or `(status, headers)`."""

    def __init__(self, turns: list[Any]) -> None:
        self.turns, self.requests, self.polls = list(turns), list[dict[str, Any]](), 0
        self.url = ""


@contextmanager
def serving(*turns: Any) -> Iterator[Server]:
    server = Server(list(turns))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.requests.append(body)
            if self.path.endswith("/responses"):
                self._json(200, _response("queued"))
                return
            match server.turns.pop(0):
                case (int(status), dict(headers)):
                    self._json(status, {"error": {"message": "not now", "type": "x", "code": None}}, headers)
                case turn:
                    self._stream(turn)

        def do_GET(self) -> None:
            server.polls += 1
            self._json(200, _response("completed" if server.polls >= 2 else "in_progress"))

        def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"content-type": "application/json", "content-length": str(len(raw)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def _stream(self, turn: Any) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for chunk in _chunks(turn):
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.flush()
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield server
        http.shutdown()
        thread.join()


def _chunks(turn: Any) -> Iterator[dict[str, Any]]:
    head = {"id": "chat1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-5-mini"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": ""})
    if isinstance(turn, str):
        for piece in turn.split(" "):
            yield chunk({"content": piece + " "})
        yield chunk({}, "stop")
    else:
        for i, (id, tool, args) in enumerate(turn):
            yield chunk({"tool_calls": [{"index": i, "id": id, "type": "function", "function": {"name": tool, "arguments": ""}}]})
            yield chunk({"tool_calls": [{"index": i, "function": {"arguments": json.dumps(args)}}]})
        yield chunk({}, "tool_calls")
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 400},
    }
    yield {**head, "choices": [], "usage": usage}


def _response(status: str) -> dict[str, Any]:
    """A response in background mode."""
    done = status == "completed"
    text = {"type": "output_text", "text": "deep answer", "annotations": []}
    usage = {
        "input_tokens": 10, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 15,
    }  # fmt: skip
    return {
        "id": "r1", "object": "response", "created_at": 1, "status": status, "background": True, "model": "gpt-5-mini", "error": None,
        "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True, "temperature": 1,
        "tool_choice": "auto", "tools": [], "top_p": 1, "usage": usage if done else None,
        "output": [{"type": "message", "id": "m1", "role": "assistant", "status": "completed", "content": [text]}] if done else [],
    }  # fmt: skip
