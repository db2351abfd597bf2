"""No secret passes, in no family, no form and no split; ordinary text and code pass untouched, in linear time."""

from __future__ import annotations

import base64
import json
import random
import string
import time
import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfloop.storage.secret_stream import RedactedStream
from selfloop.storage.secrets import PLACEHOLDER, redact, redact_data

pytestmark = pytest.mark.unit

_random = random.Random(20)


def some(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
    """Return random characters that hold a digit early on."""
    return "7" + "".join(_random.choice(alphabet) for _ in range(length - 1))


HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase + string.digits
URLSAFE = string.ascii_letters + string.digits + "-_"


def jwt() -> str:
    parts = (json.dumps({"alg": "HS256", "typ": "JWT"}), json.dumps({"sub": some(12)}), some(40))
    return ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)


def pem(kind: str) -> str:
    body = "\n".join(base64.b64encode(_random.randbytes(48)).decode() for _ in range(6))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"


# Family: (what is written, the part that must never be seen).
SAMPLES: dict[str, tuple[str, str]] = {}


def sample(family: str, secret: str, written: str = "{}") -> None:
    SAMPLES[family] = (written.replace("{}", secret), secret)


sample("anthropic", "sk-ant-api03-" + some(93, URLSAFE) + "AA")
sample("openai project", "sk-proj-" + some(80, URLSAFE))
sample("openai legacy", "sk-" + some(20) + "T3BlbkFJ" + some(20))
sample("openrouter", "sk-or-v1-" + some(64, HEX))
sample("github classic", "ghp_" + some(36))
sample("github fine-grained", "github_pat_" + some(22) + "_" + some(59))
sample("github app", "ghs_" + some(36))
sample("gitlab", "glpat-" + some(20, URLSAFE))
sample("aws key id", "AKIA" + some(16, UPPER))
sample("aws secret", some(39) + "/", "aws_secret_access_key = {}")
sample("aws secret in prose", some(18) + "/" + some(21), "The AWS secret key: {}")
sample("aws csv", some(20) + "+" + some(19), "AKIA" + some(16, UPPER) + ",{}")
sample("aws session", some(120) + "==", "AWS_SESSION_TOKEN={}")
sample("azure client secret", "abc8Q~" + some(34))
sample(
    "azure storage", some(86) + "==", "DefaultEndpointsProtocol=https;AccountName=x;AccountKey={};EndpointSuffix=core"
)
sample("azure sas", some(43) + "%3D", "https://x.blob.core/c?sv=2022&sig={}")
sample("gcp api key", "AIza" + some(35, URLSAFE))
sample("gcp service account", pem("PRIVATE KEY"), '{"type": "service_account", "private_key": "{}"}')
sample("gcp oauth", "ya29." + some(60, URLSAFE))
sample("slack", "xoxb-" + some(12, string.digits) + "-" + some(12, string.digits) + "-" + some(24))
sample(
    "slack webhook",
    "T" + some(8, UPPER) + "/B" + some(8, UPPER) + "/" + some(24),
    "https://hooks.slack.com/services/{}",
)
sample("discord", "M" + some(23) + ".G" + some(5) + "." + some(38))
sample("telegram", "AA" + some(33, URLSAFE), "123456789:{}")
sample("stripe", "sk_live_" + some(24))
sample("twilio", "SK" + some(32, HEX))
sample("twilio auth token", some(32, HEX), "TWILIO_AUTH_TOKEN={}")
sample("sendgrid", "SG." + some(22, URLSAFE) + "." + some(43, URLSAFE))
sample("npm", "npm_" + some(36))
sample("pypi", "pypi-AgEIcHlwaS5vcmc" + some(60, URLSAFE))
sample("docker hub", "dckr_pat_" + some(27, URLSAFE))
sample("docker auth", base64.b64encode(b"someone:passphrase").decode(), '{"auths": {"x": {"auth": "{}"}}}')
sample("huggingface", "hf_" + some(34))
sample("digitalocean", "dop_v1_" + some(64, HEX))
sample("databricks", "dapi" + some(32, HEX))
sample("linear", "lin_api_" + some(40))
sample("notion", "secret_" + some(43))
sample("notion new", "ntn_" + some(46))
sample("shopify", "shpat_" + some(32, HEX))
sample("atlassian", "ATATT3xFfGF0" + some(60, URLSAFE))
sample("vault", "hvs." + some(90, URLSAFE))
sample("grafana", "glsa_" + some(32) + "_" + some(8, HEX))
sample("groq", "gsk_" + some(52))
sample("xai", "xai-" + some(80))
sample("pem", pem("RSA PRIVATE KEY"))
sample("openssh", pem("OPENSSH PRIVATE KEY"))
sample("pgp", pem("PGP PRIVATE KEY BLOCK"))
sample("jwt", jwt())
sample("bearer", some(40), "Authorization: Bearer {}")
sample("basic", base64.b64encode(b"someone:hunter2hunter2").decode(), "authorization: Basic {}")
sample("url", "hunter2hunter2", "postgres://someone:{}@db.example/app")
sample("cookie", some(32), "Cookie: theme=dark; session={}; lang=de")
sample("set-cookie", some(32), "Set-Cookie: sid={}; Path=/; HttpOnly")
sample("npmrc", some(36), "//registry.example/:_authToken={}")
sample("netrc", "hunter2hunter2", "machine h.example login someone password {}")
sample("env", "hunter2hunter2", "export DB_PASSWORD={}")
sample("quoted", "correct-horse-battery", 'password = "{}"')
sample("json", "correct horse".replace(" ", "-"), '{"client_secret": "{}"}')
sample("yaml", "hunter2!hunter2", "db:\n  password: {}\n")
sample("api key", some(32), "api_key: '{}'")
sample("flag", "hunter2hunter2", "mysql --password {} -h db")
sample("header", some(32), "x-api-key: {}")

FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda text: text,
    "in a line": lambda text: f"before it, {text} and after it\n",
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 within": lambda text: base64.b64encode(f'{{"it": 1, "x": "y"}}\n{text}\n'.encode()).decode(),
    "base64 wrapped": lambda text: base64.encodebytes(f"some words before it {text}\n".encode()).decode(),
    "base64 in a URL": lambda text: urllib.parse.quote(base64.urlsafe_b64encode(f" {text}".encode()).decode()),
    "URL-encoded": lambda text: urllib.parse.quote(text, safe=""),
    "JSON": lambda text: json.dumps({"text": f"a\n{text}\n"}),
    "JSON in JSON": lambda text: json.dumps([json.dumps({"text": f"a\n{text}\n"})]),
    "coloured": lambda text: f"\x1b[1;32m{text}\x1b[0m",
}


def seen_of(secret: str, shown: str) -> int:
    """Return the longest part of the secret, from any place of it on, that can be read in a text."""
    longest = 0
    for start in range(len(secret)):
        while secret[start : start + longest + 1] in shown and start + longest < len(secret):
            longest += 1
    return longest


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", SAMPLES)
def test_a_secret_of_a_family_is_redacted_in_every_form(family: str, form: str) -> None:
    written, secret = SAMPLES[family]
    shown = redact(FORMS[form](written))
    assert PLACEHOLDER in shown
    assert redact(shown) == shown
    for line in secret.splitlines():
        decoded = (shown, urllib.parse.unquote(shown), shown.replace("\\", ""))
        assert all(seen_of(line, text) < 8 for text in decoded), shown
        for shift in range(3):
            # No group of base64 that says a part of the secret stands there either.
            core = base64.b64encode(b"x" * shift + line.encode()).decode()[4:-4]
            assert all(core[at : at + 16] not in shown for at in range(0, max(1, len(core) - 16), 4)), shown


@pytest.mark.parametrize("form", ["in a line", "base64 within", "URL-encoded", "JSON"])
@pytest.mark.parametrize("family", SAMPLES)
def test_a_secret_does_not_pass_a_stream_however_it_is_split(family: str, form: str) -> None:
    written, secret = SAMPLES[family]
    text = FORMS[form](written)
    longest = max(secret.splitlines(), key=len)
    hidden = (longest, urllib.parse.quote(longest, safe=""), base64.b64encode(longest.encode()).decode())
    splits = _random.sample(range(1, len(text)), min(24, len(text) - 1))
    for at in splits:
        stream = RedactedStream()
        shown = stream.feed(text[:at]) + stream.feed(text[at:]) + stream.finish()
        assert PLACEHOLDER in shown
        assert all(seen_of(part, shown) < 16 for part in hidden), (at, shown)
    stream = RedactedStream()
    shown = "".join(map(stream.feed, text)) + stream.finish()
    assert PLACEHOLDER in shown
    assert all(seen_of(part, shown) < 16 for part in hidden), shown


KNOWN = 'a Strange/key+with "all" sorts=1'


@pytest.mark.parametrize("form", FORMS)
def test_a_known_value_is_redacted_in_every_form(form: str) -> None:
    shown = redact(FORMS[form](KNOWN), [KNOWN])
    assert PLACEHOLDER in shown
    assert seen_of(KNOWN, urllib.parse.unquote(shown).replace("\\", "")) < 6
    assert redact(f"hex {KNOWN.encode().hex()}", [KNOWN]) == f"hex {PLACEHOLDER}"


@pytest.mark.parametrize("form", ["plain", "in a line", "base64 within", "URL-encoded", "JSON", "JSON in JSON"])
def test_a_known_value_does_not_pass_a_stream(form: str) -> None:
    text = FORMS[form](KNOWN)
    for at in range(1, len(text)):
        stream = RedactedStream([KNOWN])
        shown = stream.feed(text[:at]) + stream.feed(text[at:]) + stream.finish()
        assert PLACEHOLDER in shown
        assert seen_of(KNOWN, urllib.parse.unquote(shown).replace("\\", "")) < 8, (at, shown)


def test_a_short_known_value_blacks_out_no_words() -> None:
    assert redact("ollama is a server", ["ollama", ""]) == "ollama is a server"


ORDINARY = """
import os
from app.tokens import get_token, TokenStream
password: str = field(repr=False)
token = get_token(request)
secret = os.environ["SECRET_KEY"]
api_key = settings.api_key or config.get("api_key")
max_tokens: 4096, "maxTokens": 4096, tokens = 12345678
def login(username: str, password: str, token: Token | None = None) -> Session: ...
PASSWORD_RESET_URL = "/accounts/reset/12345678"
headers["Authorization"] = f"Bearer {token}"
url = f"https://{user}:{password}@{host}:8080/path"
DATABASE_URL=postgres://${USER}:${PASSWORD}@db/app
<input type="password" name="password" placeholder="password">
secret_name = "<your-secret>"; api_key = "YOUR_API_KEY"; key: value
commit 3f786850e387550fdab836ed7e6dc881de23001b (AWS secret rotation)
sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
from sklearn.pipeline import make_pipeline  # sk-learn-extensions-and-more-of-it
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC
-----END PUBLIC KEY-----
See https://example.org/a/b?c=d#e and git@github.com:a/b.git; 10:30:00, a::b, x -> y
This is a basic understanding-of-things, and a token of appreciation: nothing to hide.
assert response.cookies["session"] == expected_cookie
self.assertEqual(parse("a=b; c=d"), {"a": "b"})
data = base64.b64decode("aGVsbG8gd29ybGQsIHRoaXMgaXMgYSB0ZXN0IG9mIHRoZSBlbWVyZ2VuY3k=")
class AuthenticationTokenFactoryProviderImplementation(AbstractFactoryProvider): pass
"""


def test_ordinary_code_and_prose_stay_as_they_are() -> None:
    assert redact(ORDINARY) == ORDINARY


@pytest.mark.parametrize("size", [1, 3, 7, 64])
def test_ordinary_text_passes_a_stream_whole(size: int) -> None:
    stream = RedactedStream(["some-known-value"])
    pieces = [ORDINARY[at : at + size] for at in range(0, len(ORDINARY), size)]
    assert "".join(map(stream.feed, pieces)) + stream.finish() == ORDINARY


def test_ordinary_words_are_not_held_back() -> None:
    stream = RedactedStream()
    words = "The quick brown fox jumps over the lazy dog and runs the tests of chapter 12 again".split(" ")
    assert [stream.feed(f" {word}") for word in words] == [f" {word}" for word in words]


def test_a_value_is_read_together_with_the_key_that_names_it() -> None:
    data = {"password": "correct-horse", "path": "a/b", "nested": [{"token": some(32)}, "ghp_" + some(36)], "n": 1}
    assert redact_data(data) == {
        "password": PLACEHOLDER, "path": "a/b", "nested": [{"token": PLACEHOLDER}, PLACEHOLDER], "n": 1,
    }  # fmt: skip


HOSTILE = {
    "one letter": "a", "prefix": "sk-", "names": "password=", "open quotes": 'password="', "jwt": "eyJ", "dots": "eyJ.",
    "pem": "-----BEGIN RSA PRIVATE KEY-----", "half pem": "-----BEGIN ", "url": "://a:", "backslashes": "\\\\",
    "percent": "%41", "twice": "%2541", "escapes": "\\u0041", "colours": "\x1b[0m", "digits": "1", "discord": "M-",
    "cookies": "cookie:a=", "netrc": "machine login ", "spaces": " ", "secret ": "secret ", "aws": "aws",
    "azure": "A/+",
    "quotes": '"', "lines": "a" * 61 + "\n", "keys": "api_", "flags": "--token ", "vault": "s.", "bearer": "bearer ",
    "mixed": "token='a\"", "slack": "hooks.slack.com/", "telegram": "12345678:", "signature": "&sig=", "pass": "pass",
    "dashes": "-", "nul": "\0", "emoji": "😀", "dotted İ": "İ",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_linearly_with_a_hostile_text(name: str) -> None:
    unit = HOSTILE[name]

    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        best = float("inf")
        for _ in range(2):
            started = time.process_time()
            redact(text)
            best = min(best, time.process_time() - started)
        return best

    # Quadratic time would be 64 times as long for 8 times the text.
    assert seconds(100_000) < 24 * max(seconds(12_500), 0.002)


@pytest.mark.parametrize("name", ["prefix", "pem", "jwt", "names", "url", "percent", "one letter"])
def test_a_stream_of_hostile_pieces_ends_soon(name: str) -> None:
    text = HOSTILE[name] * (20_000 // len(HOSTILE[name]))
    stream = RedactedStream()
    started = time.process_time()
    for at in range(0, len(text), 8):
        stream.feed(text[at : at + 8])
    stream.finish()
    assert time.process_time() - started < 20


@given(st.text(max_size=200), st.lists(st.text(min_size=1, max_size=20), max_size=3))
def test_any_text_can_be_redacted_and_redacting_twice_changes_nothing_more(text: str, known: list[str]) -> None:
    once = redact(text, known)
    assert redact(once, known) == once or any(value in PLACEHOLDER for value in known)


@given(st.lists(st.text(max_size=12), max_size=20))
def test_a_stream_loses_no_character_of_a_text_without_secrets(pieces: list[str]) -> None:
    text = "".join(pieces)
    stream = RedactedStream()
    shown = "".join(map(stream.feed, pieces)) + stream.finish()
    assert shown == text or redact(text) != text
