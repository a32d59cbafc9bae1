"""The server of the web chat over real HTTP: its answers are the conversation's, and only its own page may ask."""

import json
import time
from dataclasses import asdict, replace

import pytest

from rerouting.cli.main import main
from rerouting.core.errors import UserError
from rerouting.pipeline.chat_style import Style
from rerouting.pipeline.conversation import Conversation, Piece
from rerouting.web import server
from rerouting.web.app import as_json
from rerouting.web.server import listen, require_extra
from tests.pipeline.tiny_pair import tiny_pair
from tests.web.serving import connect, post, serving

STYLE = Style(max_new_tokens=8, trip_below=0.9999)


@pytest.fixture(scope="module")
def pair():
    return tiny_pair(ends=False)


@pytest.fixture(scope="module")
def url(pair):
    with serving(pair, STYLE) as found:
        yield found


def test_events_are_the_conversation_s(url, pair):
    status, first = post(url, {"message": "one", "max_new_tokens": 8})
    assert status == 200
    talk = Conversation(pair, STYLE)
    assert first == [json.loads(json.dumps(as_json(event))) for event in talk.ask("one")]
    assert [event["kind"] for event in first].count("trip") == 1
    turns = [asdict(exchange) for exchange in talk.exchanges]
    asked = {"message": "two", "prefill": "Sure", "system": "short", "exchanges": turns, "max_new_tokens": 5}
    status, second = post(url, asked)
    assert status == 200
    talk.system, talk.style = "short", replace(STYLE, max_new_tokens=5)
    expected = [as_json(event) for event in talk.ask("two", "Sure")]
    assert second == json.loads(json.dumps(expected))
    assert [event["text"] for event in second if event.get("given") and event["model"] == "base"] == list(
        "Sure"
    )


def test_a_number_that_is_none_is_null():
    line = as_json(Piece("rerouted", 1, "", ended=True, cosine=None, kl=None))
    assert (line["kind"], line["cosine"], line["kl"], line["away"]) == ("piece", None, None, 0)
    assert as_json(Piece("rerouted", 1, "", cosine=0.5))["away"] == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100000, "not JSON"),
        ("[]", "no JSON object"),
        ({"message": " "}, "empty"),
        ({"prefill": "x"}, "message"),
        ({"message": "x", "mesage": 1}, "mesage"),
        ({"message": 7}, "message"),
        ({"message": "x", "exchanges": [{"user": "a"}]}, "exchanges"),
        (
            {
                "message": "x",
                "exchanges": [{"user": "a", "base": "b", "rerouted": "c", "images": ["/etc/hosts"]}],
            },
            "no pictures",
        ),
        ({"message": "x", "max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"message": "x", "max_new_tokens": 10**9}, "max_new_tokens"),
        ('{"message": "x", "temperature": NaN}', "temperature"),
        ({"message": "x", "temperature": -1}, "temperature"),
        ({"message": "x" * 5000}, "start a new one"),
    ],
)
def test_what_cannot_be_answered_is_said(url, asked, said):
    status, (problem,) = post(url, asked)
    assert status == 400
    assert said in problem["problem"] + problem["fix"]
    assert post(url, {"message": "still there?", "max_new_tokens": 1})[0] == 200


def test_too_much_is_refused(url):
    assert post(url, {"message": "x" * 2**20})[0] == 413


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "OWN"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403),
        ({"Host": "localhost:1234"}, 200),
        ({"Host": "[::1]:1234"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": None}, 415),
    ],
)
def test_only_its_own_page_may_ask(url, headers, status):
    headers = {name: url if value == "OWN" else value for name, value in headers.items()}
    assert post(url, {"message": "x", "max_new_tokens": 1}, **headers)[0] == status


@pytest.mark.parametrize(
    "path", ["/", "/chat.js", "/view.js", "/style.css", "/icon.svg", "/about", "/nothing"]
)
def test_every_answer_is_locked_down(url, path):
    connection = connect(url)
    connection.request("GET", path)
    response = connection.getresponse()
    assert response.status == (404 if path == "/nothing" else 200)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    body = response.read().decode()
    assert "https://" not in body and "innerHTML" not in body
    connection.close()


def test_a_rebound_name_does_not_even_get_the_page(url):
    connection = connect(url)
    connection.request("GET", "/", headers={"Host": "evil.example"})
    assert connection.getresponse().status == 403


def test_a_client_that_goes_away_stops_the_writing(url, pair):
    steps = []
    hook = pair.models["rerouted"].model.register_forward_hook(lambda *given: steps.append(1))
    try:
        connection = connect(url)
        body = json.dumps({"message": "long", "max_new_tokens": 1900})
        connection.request("POST", "/answer", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.readline()
        response.close()
        connection.close()
        began = time.monotonic()
        assert post(url, {"message": "next", "max_new_tokens": 1})[0] == 200  # it waited for its turn
        assert time.monotonic() - began < 8
        seen = len(steps)
        time.sleep(0.5)
        assert len(steps) == seen < 1000
    finally:
        hook.remove()


def test_one_answer_at_a_time(url, monkeypatch):
    monkeypatch.setattr("rerouting.web.app.PATIENCE", 0.3)
    connection = connect(url)
    body = json.dumps({"message": "long", "max_new_tokens": 1900})
    connection.request("POST", "/answer", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.readline()
    status, (problem,) = post(url, {"message": "next"})
    assert status == 409
    assert "another answer" in problem["problem"]
    response.close()
    connection.close()
    monkeypatch.setattr("rerouting.web.app.PATIENCE", 10)
    assert post(url, {"message": "next", "max_new_tokens": 1})[0] == 200


def test_a_failure_in_mid_answer_is_told_and_frees_the_turn(url, pair, caplog):
    calls = []

    def fail(*given):
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("broken")

    hook = pair.models["rerouted"].model.register_forward_pre_hook(fail)
    try:
        status, events = post(url, {"message": "x", "max_new_tokens": 8})
    finally:
        hook.remove()
    assert status == 200
    assert events[-1] == {"kind": "error", "problem": "the answer failed: RuntimeError", "fix": ""}
    assert post(url, {"message": "x", "max_new_tokens": 1})[0] == 200


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(server, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(UserError, match=r"needs uvicorn .* pip install 'rerouting\[ui\]'"):
        require_extra()
    assert main(["chat", str(tmp_path), "--web"]) == 2
    assert "rerouting[ui]" in capsys.readouterr().err


def test_a_port_that_is_taken():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port}: .* another --port"):
            listen("127.0.0.1", port)
    with pytest.raises(UserError, match=r"cannot listen on 'no\.such\.invalid'"):
        listen("no.such.invalid", 0)
