"""The shapes of secrets: each family's public prefix and what follows it, and the contexts that name a secret.

Every pattern is linear: it begins with something rare, and what it repeats is bounded or consumed whole. A family is
looked for only where one of its needles stands in the text, which keeps ordinary text quick.
"""

from __future__ import annotations

import re
from functools import cache

from attrs import frozen


@frozen
class Family:
    """Secrets of one shape. Group 1 is the secret part, where not the whole match is."""

    needles: tuple[str, ...]
    """Texts, one of which every member holds; in lower case if the pattern ignores case."""
    shape: str
    ending: str = ""
    """What the end of a text looks like while a member is still being written; group 1 is the part to hold back."""

    @property
    def pattern(self) -> re.Pattern[str]:
        return _compiled(self.shape)

    @property
    def opening(self) -> re.Pattern[str]:
        return _compiled(rf"{self.ending}\Z")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern when it is first needed: most of them never are, and the start shall not wait for them."""
    return re.compile(pattern)


class Families:
    """Families, found by their needles in one look at a text."""

    def __init__(self, *families: Family) -> None:
        self._families = families
        self._places: dict[str, list[int]] = {}
        for place, family in enumerate(families):
            for needle in family.needles:
                self._places.setdefault(needle, []).append(place)

    def standing_in(self, text: str) -> list[Family]:
        """Return the families that have a needle in the text."""
        places = {place for needle in [n for n in self._places if n in text] for place in self._places[needle]}
        return [self._families[place] for place in sorted(places)]


def _tokens(*prefixes: str, body: str = r"[A-Za-z0-9_-]", least: int = 20) -> Family:
    """Return a family of tokens that begin with one of the prefixes."""
    choice = "|".join(re.escape(prefix) for prefix in sorted(prefixes, key=len, reverse=True))
    start = rf"(?<![A-Za-z0-9])(?:{choice}){body}"
    return Family(prefixes, rf"{start}{{{least},}}", rf"({start}{{0,{least}}})")


def _shape(needle: str | tuple[str, ...], pattern: str, opening: str) -> Family:
    needles = (needle,) if isinstance(needle, str) else needle
    return Family(needles, pattern, opening)


TOKENS = Families(
    _tokens("sk-ant-", "sk-proj-", "sk-svcacct-", "sk-admin-", "sk-or-"),  # Anthropic, OpenAI, OpenRouter
    # The older form has no second word; the digit keeps `sk-learn-…` readable.
    _shape(
        "sk-",
        r"(?<![A-Za-z0-9])sk-(?=[A-Za-z_-]{0,24}[0-9])[A-Za-z0-9_-]{20,}",
        r"(?<![A-Za-z0-9])(sk-[A-Za-z0-9_-]{0,24})",
    ),
    _tokens("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", body=r"[A-Za-z0-9_]"),
    _tokens(
        *("glpat-", "gldt-", "glrt-", "glrtr-", "glcbt-", "glptt-", "glft-", "glimt-", "glagent-", "gloas-", "glsoat-"),
        *("glffct-", "glwt-"),
        body=r"[A-Za-z0-9_.=-]",
        least=16,
    ),
    _tokens("GR1348941", least=16),
    _shape(
        ("AKIA", "ASIA", "ABIA", "ACCA", "AROA", "AIDA", "AGPA", "ANPA", "ANVA", "A3T"),
        r"(?<![A-Za-z0-9])(?:AKIA|ASIA|ABIA|ACCA|AROA|AIDA|AGPA|ANPA|ANVA|A3T[A-Z0-9])[A-Z0-9]{16}(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9])(A(?:KIA|SIA|BIA|CCA|ROA|IDA|GPA|NPA|NVA|3T[A-Z0-9])[A-Z0-9]{0,16})",
    ),
    # A secret access key beside its key id, as in a downloaded table of credentials.
    _shape(
        ("AKIA", "ASIA"),
        r"A[KS]IA[A-Z0-9]{16}[\s,:;|\"']{1,6}([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        r"A[KS]IA[A-Z0-9]{16}[\s,:;|\"']{1,6}([A-Za-z0-9/+]{0,40})",
    ),
    _shape(
        "Q~", r"[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}", r"[0-9](Q~[A-Za-z0-9_~.-]{0,34})"
    ),  # Azure client secret
    _shape(
        "JQQJ9", r"[A-Za-z0-9]{20,76}JQQJ9[A-Za-z0-9]{20,60}", r"(JQQJ9[A-Za-z0-9]{0,60})"
    ),  # Azure's annotated keys
    _shape(
        ("AzCa", "+ABa", "+AMC", "AIoT", "+ASb", "+AEh", "+ARm"),
        r"[A-Za-z0-9/+]{30,80}(?:AzCa|\+ABa|\+AMC|AIoT|\+ASb|\+AEh|\+ARm)[A-Za-z0-9/+]{4,6}=?=?",
        r"((?:AzCa|\+ABa|\+AMC|AIoT|\+ASb|\+AEh|\+ARm)[A-Za-z0-9/+]{0,6}=?)",
    ),
    _tokens("AIza", least=30),  # GCP
    _tokens("ya29.", body=r"[A-Za-z0-9_.-]"),
    _tokens("GOCSPX-"),
    _shape("1//0", r"(?<![A-Za-z0-9/:])1//0[A-Za-z0-9_-]{30,}", r"(1//0[A-Za-z0-9_-]{0,30})"),
    _tokens(
        "xoxb-",
        "xoxp-",
        "xoxa-",
        "xoxe-",
        "xoxo-",
        "xoxr-",
        "xoxs-",
        "xoxc-",
        "xoxd-",
        "xapp-",
        body=r"[A-Za-z0-9%.-]",
        least=10,
    ),  # Slack
    _shape(
        "hooks.slack.com/",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/([A-Za-z0-9/_+-]{20,})",
        r"hooks\.slack\.com/([A-Za-z0-9/_+-]{0,40})",
    ),
    _shape(
        ".",
        r"(?<![A-Za-z0-9_-])[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,45}",
        r"([MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_.-]{0,52})",
    ),  # Discord
    _tokens("mfa.", least=60),
    _shape(
        "/api/webhooks/",
        r"/api/webhooks/[0-9]{15,22}/([A-Za-z0-9_-]{30,})",
        r"/api/webhooks/([0-9]{0,22}/?[A-Za-z0-9_-]{0,30})",
    ),
    _shape(
        ":",
        r"(?<![A-Za-z0-9])(?:bot)?[0-9]{8,10}:[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])",
        r"[0-9]{8,10}:([A-Za-z0-9_-]{0,35})",
    ),  # Telegram
    _tokens(
        "sk_live_",
        "sk_test_",
        "rk_live_",
        "rk_test_",
        "pk_live_",
        "pk_test_",
        "sk_org_",
        body=r"[A-Za-z0-9_]",
        least=16,
    ),  # Stripe
    _tokens("whsec_", body=r"[A-Za-z0-9+/=]"),
    _shape(
        ("SK", "AC"),
        r"(?<![A-Za-z0-9])(?:SK|AC)[0-9a-f]{32}(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9])((?:SK|AC)[0-9a-f]{0,32})",
    ),  # Twilio
    _shape(
        "SG.",
        r"(?<![A-Za-z0-9])SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16,}",
        r"(SG\.[A-Za-z0-9_-]{0,64}\.?[A-Za-z0-9_-]{0,16})",
    ),  # SendGrid
    _tokens("npm_", body="[A-Za-z0-9]", least=30),
    _tokens("pypi-", least=40),
    _tokens("dckr_pat_", "dckr_oat_"),  # Docker Hub
    _tokens("hf_", "api_org_", body="[A-Za-z0-9]", least=30),  # Hugging Face
    _tokens("dop_v1_", "doo_v1_", "dor_v1_", "dot_v1_", body="[a-f0-9]", least=40),  # DigitalOcean
    _tokens("dapi", "dose", "dkea", "dsap", body="[a-f0-9]", least=32),  # Databricks
    _tokens("lin_api_", "lin_oauth_", body="[A-Za-z0-9]"),  # Linear
    _tokens("secret_", body="[A-Za-z0-9]", least=40),  # Notion
    _tokens("ntn_", body="[A-Za-z0-9]", least=40),
    _tokens("shpat_", "shpca_", "shppa_", "shpss_", "shptka_", body="[A-Za-z0-9]", least=24),  # Shopify
    _tokens("ATATT3", "ATCTT3", "ATBB", "ATOA", body="[A-Za-z0-9_=-]", least=28),  # Atlassian
    _tokens("hvs.", "hvb.", "hvr."),  # Vault
    _shape(
        ("s.", "b.", "r."),
        r"(?<![A-Za-z0-9_.])[sbr]\.(?=[A-Za-z]{0,23}[0-9])[A-Za-z0-9]{24}(?![A-Za-z0-9_.(])",
        r"(?<![A-Za-z0-9_.])([sbr]\.[A-Za-z0-9]{0,24})",
    ),
    _tokens("glsa_", body="[A-Za-z0-9_]", least=32),  # Grafana
    _tokens("glc_", "eyJrIjoi", body="[A-Za-z0-9+/=_-]", least=32),
    _tokens("gsk_", body="[A-Za-z0-9]", least=32),  # Groq
    _tokens("xai-", body="[A-Za-z0-9]", least=40),  # xAI
    _tokens(
        *(
            "pplx-",
            "r8_",
            "fw_",
            "tvly-",
            "sntrys_",
            "sntryu_",
            "PMAK-",
            "NRAK-",
            "pscale_tkn_",
            "pscale_pw_",
            "dp.pt.",
        ),
        *("dp.st.", "sbp_", "nfp_", "figd_", "rubygems_", "HRKU-", "fm2_", "AGE-SECRET-KEY-1", "EAAA", "sq0csp-"),
        *("ops_eyJ", "lsv2_pt_", "lsv2_sk_", "nvapi-", "csk-", "jina_", "pa-", "ABSK"),
        least=30,
    ),
    # JSON Web Tokens, signed, unsigned and encrypted.
    _shape(
        "eyJ",
        r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*){1,3}",
        r"(?<![A-Za-z0-9_-])(eyJ[A-Za-z0-9_-]*\.?[A-Za-z0-9_-]*)",
    ),
)
"""Secrets that tell by their own shape what they are."""

PEM_BEGIN = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
PEM_END = "-----END "
PEM_TAIL = re.compile(r"-----END (?:[A-Z0-9]{1,12} ){0,4}PRIVATE KEY(?: BLOCK)?-----")
PEM_CHARACTERS = 16_384
"""An end that is farther away than this is the end of something else."""
PEM_BODY = re.compile(r"(?:[A-Za-z0-9+/=]|\\[nr]|\s{1,8}(?=[A-Za-z0-9+/=\\]))*")
"""What belongs to a private key whose end was cut off."""

NAMES = (
    r"pass(?:word|wd|phrase|code)|(?<![A-Za-z])pass|pwd|secret|(?:secret|api|access|private|auth|encryption|signing|account|shared"
    r"|subscription|service|master|admin|app|license|deploy)[ _.-]?key(?:[_-]?id)?|apikey|token|credentials?"
    r"|_auth|authorization|connection[_-]?string"
)

NAMED = re.compile(rf"(?i)(?:{NAMES})(?:_?[0-9]{{1,2}})?$")
"""A key of an object that names its value as a secret."""
ASSIGNMENT = re.compile(
    rf"""(?P<name>(?i:{NAMES}))(?:_?[0-9]{{1,2}})?["'`]?\]?
    (?P<operator>\s{{0,4}}(?:=>|:=|[:=])\s{{0,4}})
    (?:[bruf]{{0,2}}(?:"(?P<double>(?:[^"\\\s]|\\.){{6,}})"|'(?P<single>(?:[^'\\\s]|\\.){{6,}})'|`(?P<tick>[^`\s]{{6,}})`)
    |(?P<bare>[^\s"'`\\,;&<>(){{}}\[\]|]{{6,}})(?P<call>[(\[])?)""",
    re.VERBOSE,
)
"""A name that says what its value is, and the value. Whether the value is a literal is judged by `looks_secret`."""
NAME = re.compile(NAMES)
"""Such a name in lower-case text: where an assignment can begin."""
ASSIGNED_WORDS = ("pass", "pwd", "secret", "key", "token", "credential", "_auth", "authorization", "connection")
SHELL_FOLDER = re.compile(r"(?<![A-Z_a-z0-9])(?:OLD)?PWD=")
"""How a shell names its folder, which is no password."""
STRONG_NAMES = re.compile(r"(?i)pass|pwd|secret|_auth")

CONTEXTS = Families(
    # Authorization headers, in whatever notation.
    Family(
        ("bearer", "basic", "token ", "apikey "),
        r"(?i)\b(?:bearer|basic|(?<=authorization: )token|(?<=authorization: )apikey)[ ]{1,3}"
        r"(?=[A-Za-z_~+/.-]{0,64}[0-9=])([A-Za-z0-9_~+/.=-]{12,})",
    ),
    # A flag of a command line.
    Family(
        ("--",),
        rf"(?i)(?<!-)--(?=[a-z])[a-z-]{{0,32}}(?:{NAMES})\s{{1,4}}[\"']?"
        r"(?=[a-z_.:/-]{0,64}[0-9!@#$%^*+~?])([^\s\"'\\<-][^\s\"'\\]{5,})",
    ),
    # user:password in a URL, and a token in its place.
    Family(("://",), r"://[^\s/:@'\"<>?#]{0,256}:([^\s/@'\"<>]{1,512})@"),
    Family(("://",), r"://([^\s/:@'\"<>?#{}$]{16,256})@"),
    # .netrc
    Family(("login",), r"(?i)\blogin\s{1,8}[^\s]{1,128}\s{1,8}password\s{1,8}([^\s\"'\\]{3,})"),
    Family(("machine",), r"(?i)\bmachine\s{1,8}[^\s]{1,256}\s{1,8}password\s{1,8}([^\s\"'\\]{3,})"),
    # Docker's and npm's base64 of user:password.
    Family(('"auth"',), r'(?i)"auth"\s{0,4}:\s{0,4}"([A-Za-z0-9+/=_-]{8,})"'),
    # An AWS secret access key has no shape but its length.
    Family(
        ("secret", "aws"),  # 40 hexadecimal digits are a commit.
        r"(?i)(?:secret|aws)[a-z_ .-]{0,32}[\"']?[\s:=>,]{1,8}[\"']?"
        r"(?![0-9a-f]{40})([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
    ),
    # Azure: keys in connection strings, signatures of shared access.
    Family(("accountkey=", "sharedaccesskey="), r"(?i)(?:accountkey|sharedaccesskey)=([A-Za-z0-9+/=]{20,})"),
    Family(("sig=",), r"(?i)[?&;]sig=([A-Za-z0-9%+/=_-]{20,})"),
    Family(("private_key_id",), r"(?i)private_key_id[\"']?\s{0,4}[:=]\s{0,4}[\"']?([0-9a-f]{16,})"),
)
"""Secrets that only what stands before them gives away; group 1 is the secret. Needles are in lower case."""

COOKIE_LINE = re.compile(r"(?i)\b(?:set-)?cookie2?[\"']?\s{0,4}[:=]\s{0,4}([^\r\n]{1,8192})")
COOKIE_PAIR = re.compile(r"=\s{0,2}\"?([^\s;,\"'=][^\s;,\"']{5,})")
COOKIE_ATTRIBUTES = re.compile(r"(?i)(?:expires|max-age|path|domain|samesite|priority)\s?$")

OPENINGS = Families(
    Family(
        ("bearer", "basic", "authorization"),
        "",
        r"(?i)(?:bearer|basic|authorization[\"']?[:=] ?[a-z]{1,12})\s{1,3}(\S*)",
    ),
    Family(("://",), "", r"://([^\s/]{0,768})"),
    Family(("password",), "", r"(?i)password\s{1,8}(\S*)"),
    Family(
        (*ASSIGNED_WORDS, "sig", '"auth'),
        "",
        rf"(?i)(?:{NAMES}|auth|sig)[0-9_]{{0,3}}[\"'`]?\]?\s{{0,4}}(?:=>|:=|[:=])\s{{0,4}}[bruf]{{0,2}}[\"'`]?(\S*)",
    ),
    Family(("--",), "", rf"(?i)(?<!-)--(?=[a-z])[a-z-]{{0,32}}(?:{NAMES})\s{{1,4}}(\S*)"),
    Family(("secret", "aws"), "", r"(?i)(?:secret|aws)[a-z_ .-]{0,32}[\"']?[\s:=>,]{1,8}[\"']?([A-Za-z0-9/+]{0,40})"),
    Family(("cookie",), "", r"(?i)cookie2?[\"']?\s{0,4}[:=](?:[^\r\n]*[\s;])?([^\s;]*)"),
    # A Discord token shows its dots late.
    Family(("",), "", r"(?<![A-Za-z0-9_-])([MNO][A-Za-z0-9_-]{11,27}\.?[A-Za-z0-9_-]{0,6})"),
    Family(("-----begin ",), "", r"(?i)(-----BEGIN [A-Z0-9 ]{0,64}-{0,4})"),
)
"""Ends of a text in which a secret that its context gives away is still being written; group 1 is held back."""

_WORDS = re.compile(r"[A-Za-z]{1,40}[0-9]{0,3}(?:[_.:/-]{1,3}[A-Za-z]{1,40}[0-9]{0,3}){0,12}[_.:/-]?")
_DOTTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)+")
_PLACEHOLDERS = re.compile(
    r"(?i)[\[<{].*|.*(?:\$\{|\{\{).*|\\?\$(?:\(.*|[A-Z_][A-Z0-9_]*)|%[sdr(].*|[x.*_-]{3,}"
    r"|(?:your|my|the|some|an?|example|dummy|fake)(?:[_-]?[a-z]+){0,3}[_-]?(?:password|secret|token|key)(?:[_-]?here)?"
    r"|(?:password|secret|token|api[_-]?key)s?|change[_-]?(?:me|it)|none|null|undefined|true|false|string|required"
)


def looks_secret(value: str, *, strong: bool, literal: bool) -> bool:
    """Tell whether a value that stands behind a telling name is itself a secret.

    Args:
        value: without its quotes.
        strong: the name is one of a password or a secret, not only of a key or token.
        literal: it is quoted, or stands in an environment file; else it may be a variable, a type, a call.
    """
    if len(value) > 4096:
        return True
    if _PLACEHOLDERS.fullmatch(value) or len(set(value)) < 3:
        return False
    if literal and strong:
        return True
    digits = any(character.isdigit() for character in value)
    wordlike = _WORDS.fullmatch(value) is not None
    if literal:
        return len(value) >= 8 and (digits or len(value) >= 24) and not wordlike
    if _DOTTED.fullmatch(value):
        return False
    return (
        (digits or any(character in "-!@#$%^*+~?" for character in value))
        if strong
        else (digits and len(value) >= 12 and not wordlike)
    )
