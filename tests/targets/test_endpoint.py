"""A chat model behind an endpoint: a real server on this machine plays everything that can go wrong."""

import base64
import io
import json
import threading
import time
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from rerouting.core.contracts import Reply
from rerouting.core.errors import UserError
from rerouting.core.records import Message
from rerouting.targets.assistants import endpoint as module
from rerouting.targets.assistants.endpoint import Endpoint

KEY = "sk-test/5f2c9e71d0"


def said(text, ended="stop", **more):
    return {"choices": [{"message": {"role": "assistant", "content": text, **more}, "finish_reason": ended}]}


class Server(ThreadingHTTPServer):
    """Answers as `play(request body, number of the request)` says: (status, content, headers) or content alone.

    Content that is no bytes is sent as JSON; None closes the connection without a word.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        self.seen, self.lock = [], threading.Lock()
        self.play = lambda body, number: said("fine")
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """Quiet: clients that gave up waiting are expected here."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.seen)
            self.server.seen.append((self.path, self.headers.get("Authorization"), body))
        played = self.server.play(body, number)
        if played is None:
            return
        status, content, headers = played if isinstance(played, tuple) else (200, played, {})
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST  # noqa: N815

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("RR_TEST_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "_refuses_prefill", set())


@pytest.fixture
def server():
    with running() as one:
        yield one


class running:  # noqa: N801
    def __enter__(self):
        self.server = Server()
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        return self.server

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()


def endpoint(server, **options):
    defaults = {"model": "m", "url": server.url, "api_key_env": "RR_TEST_KEY", "timeout_s": 5.0}
    return Endpoint(**(defaults | {"retries": 1, "backoff_s": 0.01} | options))


def talk(*texts):
    return [[Message("user", text)] for text in texts]


def one(server, play, text="Hello", prefill="", **options):
    server.play = play
    (reply,) = endpoint(server, **options).reply(talk(text), prefill=prefill)
    assert (reply.text is None) == bool(reply.failure)
    return reply


def test_a_normal_reply_and_what_was_sent(server):
    conversation = [Message("system", "Be kind."), Message("user", "Hé"), Message("assistant", "A")]
    conversation.append(Message("user", "B"))
    server.play = lambda body, number: said("Grüezi 你好")
    model = endpoint(server, body={"seed": None, "top_p": 0.5})
    assert model.reply([conversation], max_new_tokens=7, temperature=0.5, seed=3) == [Reply("Grüezi 你好")]
    ((path, key, body),) = server.seen
    assert path == "/v1/chat/completions" and key == f"Bearer {KEY}"
    turns = [{"role": turn.role, "content": turn.content} for turn in conversation]
    assert body == {"model": "m", "messages": turns, "max_tokens": 7, "temperature": 0.5, "top_p": 0.5}


def test_a_server_without_a_key_gets_none_not_even_from_netrc(server, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    model = endpoint(server, api_key_env="", url=server.url + "/")
    assert model.reply(talk("Hello")) == [Reply("fine")]
    assert server.seen[0][:2] == ("/v1/chat/completions", None)


def test_no_conversations_no_requests(server):
    assert endpoint(server).reply([]) == [] and server.seen == []


def test_equal_conversations_get_different_seeds(server):
    endpoint(server).reply(talk("same", "same", "same"), seed=10)
    assert sorted(body["seed"] for _, _, body in server.seen) == [10, 11, 12]


@pytest.mark.parametrize("retries", [0, 1])
def test_a_time_out(server, retries):
    begun = time.monotonic()
    reply = one(server, lambda body, number: time.sleep(0.8), timeout_s=0.3, retries=retries)
    assert reply.text is None and reply.failure == f"time-out after 0.3 s; given up after {retries + 1} tries"
    assert len(server.seen) == retries + 1 and time.monotonic() - begun < 3


@pytest.mark.parametrize("status", [429, 503, 408])
def test_retry_after_is_heeded_and_then_all_is_well(server, status):
    def play(body, number):
        return (status, {"error": "slow down"}, {"Retry-After": "0.4"}) if number == 0 else said("at last")

    begun = time.monotonic()
    assert one(server, play) == Reply("at last")
    assert 0.4 <= time.monotonic() - begun < 3 and len(server.seen) == 2


def test_how_long_a_server_may_ask_to_wait():
    class Asked:
        def __init__(self, value):
            self.headers = {"Retry-After": value}

    asked = ["3", "1e9", "inf", "nan", "-2", "Wed, 21 Oct 2015 07:28:00 GMT", ""]
    assert [module._asked_to_wait(Asked(value)) for value in asked] == [3, 60, 60, 0, 0, 0, 0]


def test_an_error_for_ever_is_given_up(server):
    reply = one(server, lambda body, number: (500, b"out of order\nhere", {}), retries=3)
    assert reply.failure == "HTTP 500: out of order here; given up after 4 tries" and len(server.seen) == 4


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_a_wrong_request_is_not_tried_again(server, status):
    reply = one(server, lambda body, number: (status, {"error": "no"}, {}))
    assert reply.failure == f'HTTP {status}: {{"error": "no"}}' and len(server.seen) == 1


def test_a_broken_connection_is_tried_again(server):
    assert one(server, lambda body, number: said("back") if number else None) == Reply("back")
    cut = (200, b'{"choices": [', {"Content-Length": "500"})
    server.seen.clear()
    assert one(server, lambda body, number: said("whole") if number else cut) == Reply("whole")
    server.seen.clear()
    assert "given up after 2 tries" in one(server, lambda body, number: cut).failure


def test_nobody_listens():
    with running() as server:
        model = endpoint(server, retries=0)
    (reply,) = model.reply(talk("Hello"))
    assert reply.text is None and reply.failure.startswith("no connection: ")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"<html>Bad gateway</html>", "not JSON: '<html>Bad gateway</html>'"),
        (b"\xff\xfe\x00garbage", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"", "not JSON: ''"),
        ({"id": 5}, "no choices in the response: {'id': 5}"),
        ({"choices": []}, "no choices"),
        ({"choices": "text"}, "no choices"),
        ({"choices": [None]}, "no choices"),
        ([1, 2], "no choices"),
        ({"choices": [{}]}, "empty text (finish_reason None)"),
        ({"choices": [{"message": "words"}]}, "empty text"),
        (said(""), "empty text (finish_reason stop)"),
        (said(" \n"), "empty text"),
        (said(None, "length"), "empty text (finish_reason length)"),
        (said(7), "empty text"),
        (said([{"type": "image"}, "x", {"text": 5}]), "empty text"),
        (said("half a te", "content_filter"), "content filter: the endpoint withheld the text"),
        (said(None, refusal="I'd rather not."), "refused by the endpoint: I'd rather not."),
    ],
)
def test_what_is_no_reply(server, content, why):
    reply = one(server, lambda body, number: content)
    assert reply.text is None and reply.failure.startswith(why)
    assert len(server.seen) == 1, "asking again would not help"


def test_an_http_error_by_the_content_filter_says_so(server):
    play = {"error": {"code": "content_filter", "message": "The prompt was filtered."}}
    assert one(server, lambda body, number: (400, play, {})).failure.startswith("content filter: HTTP 400: ")


def test_text_in_parts(server):
    parts = [{"type": "text", "text": "one "}, {"type": "image"}, {"type": "text", "text": "two"}]
    assert one(server, lambda body, number: said(parts)) == Reply("one two")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(server, status):
    with running() as other:
        goal = {"Location": f"{other.url}/chat/completions"}
        reply = one(server, lambda body, number: (status, b"", goal))
        assert reply.failure.startswith(f"HTTP {status}") and other.seen == []
    assert len(server.seen) == 1


class TestPrefill:
    REFUSED = (400, {"error": {"message": "Unrecognized request argument: continue_final_message"}}, {})

    def test_is_sent_as_the_assistants_and_is_part_of_the_text(self, server):
        assert one(server, lambda body, number: said(" so it goes"), prefill="Sure,") == Reply(
            "Sure, so it goes"
        )
        ((_, _, body),) = server.seen
        assert body["messages"][-1] == {"role": "assistant", "content": "Sure,"}
        assert body["continue_final_message"] is True and body["add_generation_prompt"] is False

    def test_is_not_doubled(self, server):
        reply = one(server, lambda body, number: said("Sure, so it goes"), prefill="Sure,")
        assert reply == Reply("Sure, so it goes")

    @pytest.mark.parametrize(
        "refused",
        [
            REFUSED,
            (422, {"detail": [{"loc": ["body", "add_generation_prompt"], "msg": "extra fields"}]}, {}),
            (400, {"error": "This model does not support assistant message prefill."}, {}),
            (400, {"message": "Expected last role User or Tool for serving but got assistant"}, {}),
        ],
    )
    def test_falls_back_to_words_and_remembers(self, server, refused):
        def play(body, number):
            last = body["messages"][-1]
            return refused if last["role"] == "assistant" else said("so it goes")

        assert one(server, play, prefill="Sure, ") == Reply("Sure, so it goes")
        first, second = (body for _, _, body in server.seen)
        assert "continue_final_message" in first and "continue_final_message" not in second
        wanted = "Hello\n\nBegin your reply with exactly these characters: Sure, "
        assert second["messages"] == [{"role": "user", "content": wanted}]
        assert one(server, play, prefill="Sure, ") == Reply("Sure, so it goes")
        assert len(server.seen) == 3, "the second time it is not even tried"

    def test_another_refusal_is_no_reason_to_fall_back(self, server):
        reply = one(server, lambda body, number: (400, {"error": "too long"}, {}), prefill="Sure,")
        assert reply.failure.startswith("HTTP 400") and len(server.seen) == 1

    def test_its_failures_stay_failures(self, server):
        assert one(server, lambda body, number: said(""), prefill="Sure,").text is None


class TestKey:
    def test_never_comes_back(self, server):
        echoes = [
            (401, {"error": f"Incorrect API key provided: {KEY}."}, {}),
            (401, json.dumps({"error": f"wrong key {KEY}"}).replace("/", "\\/").encode(), {}),
            (500, f"Bearer {KEY}".encode(), {}),
            (429, f"{'x' * 290} {KEY}".encode(), {}),
            (302, KEY.encode(), {"Location": f"/?{KEY}"}),
            f"no JSON but {KEY}".encode(),
            {"error": KEY},
            {KEY: 1},
            said(f"Your key is {KEY}, I think."),
            said([{"text": KEY[:5]}, {"text": KEY[5:]}]),
            said("", KEY),
            said(None, refusal=f"Not with {KEY}"),
        ]
        server.play = lambda body, number: echoes[int(body["messages"][0]["content"])]
        model = endpoint(server, retries=0)
        replies = model.reply(talk(*map(str, range(len(echoes)))))
        assert {key for _, key, _ in server.seen} == {f"Bearer {KEY}"}
        assert replies[8] == Reply("Your key is ***, I think.")
        assert "wrong key ***" in replies[1].failure
        secrets = (KEY, KEY.replace("/", "\\/"), KEY[:12])
        for shown in [repr(replies), repr(model), str(asdict(model)), str(vars(model))]:
            assert not any(secret in shown for secret in secrets)

    def test_a_placeholder_is_no_secret_and_spoils_no_text(self, server, monkeypatch):
        monkeypatch.setenv("RR_TEST_KEY", "none")
        assert one(server, lambda body, number: said("none of these")) == Reply("none of these")

    def test_missing_at_first_or_later(self, server, monkeypatch):
        model = endpoint(server)
        for gone in ("", "  "):
            monkeypatch.setenv("RR_TEST_KEY", gone)
            for call in (lambda: model.reply(talk("Hello")), lambda: endpoint(server)):
                with pytest.raises(UserError, match="RR_TEST_KEY is not set"):
                    call()
        monkeypatch.delenv("RR_TEST_KEY")
        with pytest.raises(UserError, match="RR_TEST_KEY is not set"):
            endpoint(server)
        assert server.seen == []

    @pytest.mark.parametrize("wrong", ["sk-a b", "sk-é", "sk-a\nX-Evil: 1"])
    def test_that_no_header_can_hold_is_not_shown(self, server, monkeypatch, wrong):
        monkeypatch.setenv("RR_TEST_KEY", wrong)
        with pytest.raises(UserError, match="RR_TEST_KEY") as error:
            endpoint(server)
        assert wrong not in str(error.value)

    def test_in_place_of_its_name_is_not_shown(self, server):
        with pytest.raises(UserError, match="api_key_env") as error:
            endpoint(server, api_key_env=KEY)
        assert KEY not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000/v1",
        "ftp://h/v1",
        "http://",
        "",
        "http://h:abc/v1",
        "http://h:0",
        "http://[::1/v1",
        "h",
    ],
)
def test_a_malformed_address(url):
    with pytest.raises(UserError, match="malformed endpoint address"):
        Endpoint("m", url, "")


@pytest.mark.parametrize(
    "url",
    [f"http://me:{KEY}@h/v1", f"http://h/v1?key={KEY}", f"http://h/v1#{KEY}", f"http://me:{KEY}@h:abc/v1"],
)
def test_an_address_that_holds_a_secret_is_not_shown(url):
    with pytest.raises(UserError, match="address") as error:
        Endpoint("m", url, "")
    assert KEY not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"retries": -1},
        {"concurrency": 0},
        {"timeout_s": 0.0},
        {"backoff_s": -1.0},
        {"body": {"day": object()}},
    ],
)
def test_options_out_of_range(server, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        endpoint(server, **wrong)


def test_order_is_kept_and_requests_run_beside_each_other(server):
    under_way, most = 0, 0

    def play(body, number):
        nonlocal under_way, most
        with server.lock:
            under_way += 1
            most = max(most, under_way)
        text = body["messages"][0]["content"]
        time.sleep(0.15 if int(text) % 3 == 0 else 0.02)
        with server.lock:
            under_way -= 1
        return said(f"answer {text}")

    server.play = play
    replies = endpoint(server, concurrency=4).reply(talk(*map(str, range(12))))
    assert replies == [Reply(f"answer {at}") for at in range(12)]
    assert 1 < most <= 4


def test_one_bad_conversation_voids_no_other(server):
    bad = {
        "1": (500, b"", {}),
        "2": b"garbage",
        "3": {"choices": []},
        "4": said(None, refusal="No."),
        "5": None,
        "6": said("x", "content_filter"),
    }
    server.play = lambda body, number: bad.get(body["messages"][0]["content"], said("good"))
    replies = endpoint(server).reply(talk(*map(str, range(8))))
    assert [reply.text for reply in replies] == ["good", *[None] * 6, "good"]
    assert (
        all(reply.failure for reply in replies[1:7]) and len({reply.failure for reply in replies[1:7]}) == 6
    )


def test_pictures_are_parts_before_the_text(server, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    turn = Message("user", "What is this?", images=("blank:3x2", "blank:2000x1000"))
    bad = Message("user", "What is this?", images=(str(tmp_path / "bad.png"),))
    found = endpoint(server).reply([[turn], [bad]])
    assert found[0] == Reply("fine")
    assert found[1].text is None and "no picture that can be read" in found[1].failure
    ((_, _, body),) = server.seen
    small, large, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is this?"}
    for part, kind, size in ((small, "png", (3, 2)), (large, "jpeg", (2000, 1000))):
        head, _, data = part["image_url"]["url"].partition(",")
        assert part["type"] == "image_url" and head == f"data:image/{kind};base64"
        sent = Image.open(io.BytesIO(base64.b64decode(data)))
        assert sent.size == size and sent.convert("RGB").getpixel((0, 0)) == (127, 127, 127)


def test_a_prefill_beside_a_picture_is_asked_for_in_words(server):
    turn = Message("user", "What is this?", images=("blank:3x2",))
    server.play = lambda body, number: (
        (400, {"error": "unknown continue_final_message"}, {}) if number == 0 else said("red")
    )
    (reply,) = endpoint(server).reply([[turn]], prefill="It is ")
    assert reply.text == "It is red"
    *_, text = server.seen[-1][2]["messages"][0]["content"]
    assert text["text"].startswith("What is this?") and text["text"].endswith("characters: It is ")
