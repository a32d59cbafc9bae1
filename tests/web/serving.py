"""The chat's server on a free port, in a thread of the test's process."""

import http.client
import json
import threading
import time
from contextlib import contextmanager

import uvicorn

from rerouting.web.app import app_of
from rerouting.web.server import address, listen


@contextmanager
def serving(pair, style):
    """Yields the address, http://127.0.0.1:PORT."""
    listening = listen("127.0.0.1", 0)
    config = uvicorn.Config(app_of(pair, style), log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < until, "the server did not start"
        time.sleep(0.02)
    try:
        yield address(listening)
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


def connect(url):
    return http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)


def post(url, asked, **headers):
    """Status and events (or the problem) of a message; a header given as None is left out."""
    connection = connect(url)
    given = {"Content-Type": "application/json"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    body = asked if isinstance(asked, (str, bytes)) else json.dumps(asked)
    connection.request("POST", "/answer", body, {name: value for name, value in given.items() if value})
    response = connection.getresponse()
    lines = [json.loads(line) for line in response.read().splitlines()]
    connection.close()
    return response.status, lines
