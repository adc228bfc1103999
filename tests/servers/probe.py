"""The SMTP client of the tests: one process inside the namespace.

It reads one JSON object a line from stdin and answers each with one on stdout:

- ``{"do": "probe", "client", "server", "port", "rcpt"}``: one connection, up to RCPT;
- ``{"do": "hasty", ...}``: one connection that speaks before the greeting, up to the reply;
- ``{"do": "open", ...}``, then ``{"do": "rcpt"}`` or ``{"do": "again"}`` (a new envelope, up to
  RCPT) any number of times, then ``{"do": "close"}``: a session that stays open over several calls;
- ``{"do": "send", ...}``: one connection that sends a mail of one line, up to the last reply;
- ``{"do": "start", ...}``: probe without end in the background; ``{"do": "count"}`` tells how
  many answers of each kind came so far, ``{"do": "stop"}`` the same after the last one.

An answer to a probe names the step it ended at (greeting, helo, mail, rcpt) and the code and
text of the reply; code 0 stands for a connection that was refused, cut or silent.
But for "send" nothing is ever sent after RCPT, so no mail comes into being.
"""

import json
import socket
import sys
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

TIMEOUT = 20.0  # seconds for one reply
Request = dict[str, Any]


class Session:
    """One SMTP connection from a chosen client address."""

    def __init__(self, request: Request) -> None:
        """Connect; OSError if that fails."""
        self.recipient: str = request["rcpt"]
        self.socket = socket.create_connection(
            (request["server"], request["port"]), TIMEOUT, (request["client"], 0)
        )
        self.reader = self.socket.makefile("rb")
        self.step = "greeting"

    def introduce(self) -> Request:
        """Go as far as MAIL; the reply to that, or the first refusal."""
        answer = self._reply()
        for step, command in (
            ("helo", "HELO client.example.net"),
            ("mail", "MAIL FROM:<someone@client.example.net>"),
        ):
            if answer["code"] < 400:
                answer = self._command(step, command)
        return answer

    def hurry(self) -> Request:
        """Don't wait for the greeting; the first reply."""
        return self._command("greeting", "HELO client.example.net")

    def rcpt(self) -> Request:
        """Ask to relay; the reply."""
        return self._command("rcpt", f"RCPT TO:<{self.recipient}>")

    def again(self) -> Request:
        """Begin one more envelope, and ask to relay; the reply to that."""
        self._command("rset", "RSET")
        self._command("mail", "MAIL FROM:<someone@client.example.net>")
        return self.rcpt()

    def data(self) -> Request:
        """Send a mail of one line; the reply, or the first refusal."""
        answer = self._command("data", "DATA")
        return (
            self._command("end", "Subject: test\r\n\r\ntest\r\n.")
            if answer["code"] < 400
            else answer
        )

    def close(self) -> None:
        """Say QUIT, wait for the server to hang up, and close.

        Exim answers QUIT only when the client has no more to say, or 0.2 seconds later.
        """
        with suppress(OSError):
            self.socket.sendall(b"QUIT\r\n")
            self.socket.shutdown(socket.SHUT_WR)
            self.reader.read()
        self.reader.close()
        self.socket.close()

    def _command(self, step: str, command: str) -> Request:
        self.step = step
        self.socket.sendall(command.encode() + b"\r\n")
        return self._reply()

    def _reply(self) -> Request:
        line = self.reader.readline()
        while line[3:4] == b"-":
            line = self.reader.readline()
        if not line:
            raise ConnectionError("the server hung up")
        return {"step": self.step, "code": int(line[:3]), "text": line[4:].decode().strip()}


def probe(request: Request) -> Request:
    """One connection, as far as the request says: how did it end?"""
    step = "connect"
    try:
        session = Session(request)
        step = session.step
        try:
            if request["do"] == "hasty":
                return session.hurry()
            answer = session.introduce()
            if answer["code"] < 400:
                answer = session.rcpt()
            if request["do"] == "send" and answer["code"] < 400:
                answer = session.data()
            return answer
        finally:
            step = session.step
            session.close()
    except OSError as error:
        return {"step": step, "code": 0, "text": str(error)}


class Loop:
    """Probes one after the other in the background, and counts the answers."""

    def __init__(self, request: Request) -> None:
        """Start; every probe follows ``request``."""
        self.request = request
        self.counts: Counter[str] = Counter()
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.stopping.is_set():
            answer = probe(self.request)
            with self.lock:
                self.counts[f"{answer['step']} {answer['code']}"] += 1

    def count(self) -> Request:
        """How many answers of each kind so far, as ``{"rcpt 250": 17}``."""
        with self.lock:
            return dict(self.counts)

    def stop(self) -> Request:
        """Let the probe that runs end, then count."""
        self.stopping.set()
        self.thread.join()
        return self.count()


def serve() -> None:
    """Answer requests until stdin ends."""
    session: Session
    loop: Loop
    for line in sys.stdin:
        request = json.loads(line)
        answer: Request = {}
        match request["do"]:
            case "probe" | "hasty" | "send":
                answer = probe(request)
            case "open":
                session = Session(request)
                answer = session.introduce()
            case "rcpt":
                answer = session.rcpt()
            case "again":
                answer = session.again()
            case "close":
                session.close()
            case "start":
                loop = Loop(request)
            case "count":
                answer = loop.count()
            case "stop":
                answer = loop.stop()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
