"""A model behind an OpenAI-compatible endpoint (POST {url}/chat/completions, {url}/completions for raw text).

Whatever goes wrong with one conversation (time-out, refused connection, HTTP error, no JSON, no choices, empty text,
content filter) is that reply's failure and stops nothing. Only a missing key or a malformed address stops at once.

The key is read from an environment variable when a request is made and stands in no field, file or message; what
comes back is searched for it (replies only for keys of 8 characters or more: "none" and "EMPTY" are words, not
secrets). It is sent to `url` alone: redirects are not followed, ~/.netrc is not read.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from rerouting.core.contracts import Reply
from rerouting.core.errors import UserError
from rerouting.core.records import Message
from rerouting.pictures.opening import data_url

_CONTINUES = {"continue_final_message": True, "add_generation_prompt": False}
_ASKED = "\n\nBegin your reply with exactly these characters: {}"
_LONGEST_WAIT = 60.0
_SECRET = 8
_ABOUT_PREFILL = (*_CONTINUES, "prefill", "assistant message", "last message", "last role")
_refuses_prefill: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Endpoint:
    """OpenAI, vLLM, SGLang, llama.cpp, Ollama and their like."""

    model: str
    """Name of the model as the server knows it."""
    url: str = "https://api.openai.com/v1"
    """Address up to, and without, /chat/completions or /completions."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key (its name, never the key); "" for a server without one."""
    timeout_s: float = 120.0
    """Seconds of silence after which a request is given up."""
    retries: int = 5
    """More tries after 408, 429, 5xx, a time-out or a broken connection."""
    backoff_s: float = 1.0
    """Seconds before the first retry; doubled for each further one, at most 60; Retry-After is heeded."""
    concurrency: int = 8
    """Requests under way at once."""
    body: dict[str, Any] = field(default_factory=dict)
    """Fields put into each request's JSON; null takes one out: {seed: null} for a server that refuses seeds."""

    def __post_init__(self) -> None:
        _check_address(self.url)
        if self.retries < 0 or self.concurrency < 1 or self.timeout_s <= 0 or self.backoff_s < 0:
            raise UserError(
                f"retries {self.retries}, concurrency {self.concurrency}, timeout_s {self.timeout_s}, "
                f"backoff_s {self.backoff_s}",
                "they must be at least 0, at least 1, above 0, and at least 0",
            )
        try:
            json.dumps(self.body, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UserError(f"body cannot be sent as JSON: {error}", "quote dates and the like") from error
        self._key()

    def reply(
        self,
        conversations: Sequence[Sequence[Message]],
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        prefill: str = "",
    ) -> list[Reply]:
        """Continue each conversation; equal ones get different seeds. Pictures are sent before their turn's text.

        A prefill is sent as a last assistant message with `continue_final_message`; a server that refuses that field
        is asked in words to begin so, and the prefill is put in front of what it writes if it did not.

        Raises:
            UserError: the key is gone from the environment.
        """
        key = self._key()
        common = {"model": self.model, "max_tokens": max_new_tokens, "temperature": temperature}
        return self._all(
            len(conversations),
            lambda at: self._one(conversations[at], prefill, common | {"seed": seed + at}, key),
        )

    def complete(self, prompts: Sequence[str], *, max_new_tokens: int = 16) -> list[Reply]:
        """Continue raw texts greedily, without a chat template, as classifiers are asked (vLLM, SGLang, llama.cpp).

        Raises:
            UserError: the key is gone from the environment.
        """
        key = self._key()
        common = {"model": self.model, "max_tokens": max_new_tokens, "temperature": 0.0}
        bodies = [common | {"prompt": prompt} | self.body for prompt in prompts]
        return self._all(len(bodies), lambda at: self._tried(bodies[at], key, "/completions"))

    def _all(self, count: int, call: Callable[[int], Reply]) -> list[Reply]:
        with ThreadPoolExecutor(min(self.concurrency, max(1, count))) as pool:
            return list(pool.map(call, range(count)))

    def _key(self) -> str:
        if not self.api_key_env:
            return ""
        if not re.fullmatch(r"\w+", self.api_key_env):  # perhaps the key itself, so it is not shown
            raise UserError(
                "api_key_env is no name of an environment variable",
                "put the key into one, and give that one's name: OPENAI_API_KEY",
            )
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise UserError(
                f"the environment variable {self.api_key_env} is not set",
                'put the endpoint\'s key there, or set api_key_env to "" for a server without one',
            )
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise UserError(
                f"the key in {self.api_key_env} holds characters that no HTTP header can", "set it again"
            )
        return key

    def _one(self, turns: Sequence[Message], prefill: str, fields: dict[str, Any], key: str) -> Reply:
        server = (self.url, self.model)
        if prefill and server not in _refuses_prefill:
            reply = self._post(turns, prefill, fields, key, continues=True)
            if reply.text is not None or not _is_about_prefill(reply.failure):
                return reply
            _refuses_prefill.add(server)
        return self._post(turns, prefill, fields, key, continues=False)

    def _post(
        self, turns: Sequence[Message], prefill: str, fields: dict[str, Any], key: str, *, continues: bool
    ) -> Reply:
        extra: dict[str, Any] = {}
        asked = "" if continues else prefill and _ASKED.format(prefill)
        try:
            sent = [_sent(turn) for turn in turns[:-1]] + [_sent(turn, asked) for turn in turns[-1:]]
        except UserError as error:  # an unreadable picture is this conversation's failure
            return Reply(None, str(error))
        if prefill and continues:
            sent.append({"role": "assistant", "content": prefill})
            extra = dict(_CONTINUES)
        reply = self._tried(fields | {"messages": sent} | extra | self.body, key)
        if reply.text is None or not prefill or reply.text.lstrip().startswith(prefill.strip()):
            return reply
        return Reply(prefill + reply.text)

    def _tried(self, body: dict[str, Any], key: str, path: str = "/chat/completions") -> Reply:
        """The reply after as many tries as are allowed; the last failure if none went well."""
        body = {name: value for name, value in body.items() if value is not None}
        for number in range(self.retries + 1):
            wait = min(_LONGEST_WAIT, self.backoff_s * 2**number)
            try:
                response = requests.post(
                    self.url.rstrip("/") + path,
                    json=body,
                    auth=_Bearer(key),
                    timeout=self.timeout_s,
                    allow_redirects=False,
                )
            except requests.Timeout:
                failure = f"time-out after {self.timeout_s:g} s"
            except requests.ConnectionError as error:
                failure = f"no connection: {_scrubbed(str(error), key)[:200]}"
            except requests.exceptions.ChunkedEncodingError:
                failure = "the connection broke in the middle of the response"
            except (requests.RequestException, ValueError, OSError) as error:
                return Reply(None, f"the request failed: {_scrubbed(str(error), key)[:200]}")
            else:
                if response.status_code not in (408, 429) and response.status_code < 500:
                    return _read(response, key)
                failure = _http_failure(response, key)
                wait = max(wait, _asked_to_wait(response))
            if number < self.retries:
                time.sleep(wait)
        return Reply(None, f"{failure}; given up after {self.retries + 1} tries", passing=True)


def _sent(turn: Message, asked: str = "") -> dict[str, Any]:
    """A turn as JSON, followed by what is asked besides."""
    text = turn.content + asked
    if not turn.images:
        return {"role": turn.role, "content": text}
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": data_url(image)}} for image in turn.images
    ]
    return {"role": turn.role, "content": [*parts, {"type": "text", "text": text}]}


class _Bearer(requests.auth.AuthBase):
    """Puts the key into the header; as an `auth` it also keeps requests from reading ~/.netrc."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


def _read(response: requests.Response, key: str) -> Reply:
    """What a response that is not tried again says."""
    if response.status_code != 200:
        return Reply(None, _http_failure(response, key))
    try:
        data = response.json()
    except (ValueError, RecursionError):
        return Reply(None, f"not JSON: {_scrubbed(response.text, key)[:120]!r}")
    return _of_choice(data, key)


def _of_choice(data: Any, key: str) -> Reply:
    """What the first choice of a response's JSON says."""
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return Reply(None, f"no choices in the response: {_scrubbed(str(data), key)[:120]}")
    message, ended = choices[0].get("message"), choices[0].get("finish_reason")
    if ended == "content_filter":
        return Reply(None, "content filter: the endpoint withheld the text")
    if isinstance(message, dict) and message.get("refusal"):
        return Reply(None, f"refused by the endpoint: {_scrubbed(str(message['refusal']), key)[:120]}")
    text = _text(message.get("content") if isinstance(message, dict) else choices[0].get("text"))
    if not text.strip():
        return Reply(None, f"empty text (finish_reason {_scrubbed(str(ended), key)[:40]})")
    return Reply(_scrubbed(text, key) if len(key) >= _SECRET else text)


def _text(content: Any) -> str:
    """A message's content: text, or a list of parts."""
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _http_failure(response: requests.Response, key: str) -> str:
    shown = " ".join(_scrubbed(response.text, key).split())[:300]
    kind = "content filter: " if "content_filter" in shown else ""
    return f"{kind}HTTP {response.status_code}: {shown}"


def _asked_to_wait(response: requests.Response) -> float:
    """Seconds of a Retry-After header, at most 60; 0 if there is none, or a date."""
    try:
        return min(_LONGEST_WAIT, max(0.0, float(response.headers.get("Retry-After", "0"))))
    except ValueError:
        return 0.0


def _is_about_prefill(failure: str) -> bool:
    client_error = failure.startswith(("HTTP 400", "HTTP 422"))
    return client_error and any(words in failure.lower() for words in _ABOUT_PREFILL)


def _scrubbed(text: str, key: str) -> str:
    """The text without the key, as it is or escaped for JSON or an address."""
    if key:
        escaped = json.dumps(key)[1:-1]
        for form in (key, escaped, escaped.replace("/", "\\/"), quote(key, safe="")):
            text = text.replace(form, "***")
    return text


def _check_address(url: str) -> None:
    """Raise for an address that cannot be one, or that holds more than one; a secret in it is not shown."""
    secret = any(sign in url for sign in "@?#")
    try:
        address = urlsplit(url)
        known = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        known = False
    if secret:
        raise UserError(
            "the endpoint's address holds a user, a password, a query or a fragment",
            "put the key into an environment variable and name it in api_key_env",
        )
    if not known:
        raise UserError(f"malformed endpoint address {url!r}", "write https://host[:port]/v1")
