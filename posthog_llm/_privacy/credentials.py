"""Finds what looks like a credential in texts from providers and exceptions.

Three searches: by the form of the credential itself, by the name before it, and by its place in a
URL. Each scans a text once, even a text crafted to be slow: no pattern has an open repetition
followed by a condition.

The prefixes are those that the providers document, and that gitleaks and detect-secrets know.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .escapes import DEPTH, HIDDEN, plainer

_MOST = 128 << 10
"""Maximum characters searched; nobody shows that much of an error."""
_WORD = 64
"""Most characters of a text whose result is remembered: the name of a model, a stop reason."""
_LONG = 40
"""A longer value after a credential's name is a credential, whatever it looks like."""

# -- by its look ---------------------------------------------------------------------

_STARTS = (
    # Models and related services.
    *("sk-", "[ps]k-lf-", "xai-(?=[A-Za-z0-9*]{10})", "gsk_", "pplx-(?=[A-Za-z0-9*]{10})", "csk-"),
    *("nvapi-", "r8_(?=[A-Za-z0-9*]{8})", "hf_(?=[A-Za-z0-9*]{8})", "api_org_", "tgp_v1_"),
    *("fw_(?=[A-Za-z0-9*]{16})", "jina_(?=[0-9a-f]{16})", "tvly-", "lsv2_", "pa-(?=[\\w-]{40})"),
    *("sess-(?=[A-Za-z0-9]{32})", "vck_", "ph[cxsr]_"),
    # Clouds.
    *("AIza", r"ya29\.", r"AQ\.(?=[\w-]{16})", "GOCSPX-", r"1//0(?=[\w-]{20})", "bedrock-api-key-"),
    *("ABSK", "LTAI(?=[A-Za-z0-9]{12})", "AKID(?=[A-Za-z0-9]{16})", "do[opr]_v1_", "HRKU-"),
    *("dapi(?=[a-f0-9]{32})", r"hv[bsr]\.(?=[\w-]{24})", "pul-(?=[a-f0-9]{40})", "tskey-", "fo1_"),
    # Code, packages and chats.
    *("gh[opusr]_", "github_pat_", "gl(?:pat|dt|rt|ft|imt|agent|oas|ffct|soat|ptt|cbt|wt)-"),
    *("npm_(?=[A-Za-z0-9*]{8})", "pypi-(?=[\\w-]{16})", "rubygems_", "dckr_pat_", "sgp_"),
    *("xox[a-z](?:[.-]xox[a-z])?-", "xapp-", "oy2(?=[a-z0-9]{43})"),
    # Everything else that an application may hold.
    *("whsec_", "[spr]k_(?:live|test|prod)_", r"SG\.(?=[\w-]{10})", "shp(?:at|ca|pa|ss|tka)_"),
    *("gl(?:sa|c)_", "ntn_", "secret_(?=[A-Za-z0-9]{40})", "lin_(?:api|oauth)_", "figd_", "PMAK-"),
    *("sntr(?:ys|yu)_", r"dp\.(?:pt|st|ct|sa)\.", "pscale_(?:tkn|oauth|pw)_", "sq0[a-z]{3}-"),
    *("NRAK-", "ops_eyJ", "A3-(?=[A-Z0-9]{6}-)", "AGE-SECRET-KEY-", "ATATT", r"sl\.u\."),
    *("key-(?=[0-9a-f]{32})", "SK(?=[0-9a-f]{32})", "EAAA(?=[\\w-]{22})", "EZ[AT]K(?=\\w{54})"),
)
_BY_LOOK = re.compile(
    # A private key, or any other block of this form; an unterminated one extends to the end.
    r"(?P<block>-----BEGIN [A-Z0-9 ]{1,60}-----(?s:.*?)(?:-----END [A-Z0-9 ]{1,60}-----|\Z))"
    # AWS: an access key's id, and the secret if it is next to it.
    r"|(?P<aws>(?<![A-Za-z0-9])(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9*]{12,}"
    r"(?:[^\w/+]{1,4}(?:(?i:secret)[^\w/+]{1,4})?[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+]))?)"
    # A JSON Web Token, or other JSON in base64.
    r"|(?P<token>(?<![A-Za-z0-9+/])ey[JI][\w-]{14,}(?:\.[\w-]+)*)"
    r"|(?<![A-Za-z0-9])(?:" + "|".join(_STARTS) + r")(?P<rest>[\w*.…•+/=-]+)"
    r"|(?P<starred>(?<![\w*-])[\w-]{2,48}(?:\*{3,}|•{3,})[\w*•-]*)"
    r"|(?P<bot>(?<!\d)\d{8,10}:AA[\w-]{30,})"
    r"|(?P<azure>(?<![\w~.])[\w~.]{3}\dQ~[\w~.-]{31,34})"
    r"|(?P<hook>hooks\.slack\.com/(?:services|workflows|triggers)/[\w/]+"
    r"|discord(?:app)?\.com/api/webhooks/[\w/-]+)",
    re.ASCII,
)


def _hidden_look(match: re.Match[str]) -> str:
    rest = match["rest"]
    if rest is None or _is_random(rest.rstrip(".…"), 8):
        return HIDDEN
    return match[0]


def _is_random(text: str, least: int) -> bool:
    """Whether a text looks machine-made rather than like words."""
    if "*" in text or "•" in text or "…" in text or "..." in text:
        return True
    if len(text) < least:
        return False
    letters = any(map(str.isalpha, text))
    if any(map(str.isdigit, text)):
        return letters or len(text) >= 2 * least
    return len(text) >= 12 and any(map(str.isupper, text[1:])) and any(map(str.islower, text))


# -- by the name before it -----------------------------------------------------------

_STRONG = (
    r"(?:api|app|access|secret|private|subscription|account|client|shared|master|service|license"
    r"|signing|encryption|auth|storage|admin|project|bot|webhook)[_. -]?keys?"
    r"|(?P<always>pass(?:word|wd|phrase|code)|pwd|client[_. -]?secret|secret"
    r"|x-[a-z-]{1,24}-(?:key|token|signature))"
    r"|(?:access|auth|refresh|id|session|security|bearer|api|csrf|xsrf)[_. -]?token"
    r"|credentials?|x-amz-credential"
)
_WEAK = r"(?<![a-z])(?:key|sid|auth|session|assertion)|(?P<token>token|sig(?:nature)?|hmac)"
_WHOLE_LINE = r"(?:proxy-)?authorization|(?:set-)?cookie"
_NAMED = re.compile(
    rf"(?i:(?P<line>{_WHOLE_LINE})|(?P<strong>{_STRONG})|(?P<weak>{_WEAK}))"
    # What closes the name and leads to the value.
    r"""(?P<sep>(?i:[_-]?(?:value|id))?[\\"'`\])]{0,4}\s{0,4}(?:"""
    r"""(?P<direct>=>|:=|={1,2}|%3[dD]|:(?=["'\\])|>)|:|%3[aA]|,\s{0,4}b?(?=\\?["'])"""
    r"""|(?i:provided|given|supplied|used|received|was|is|you provided)\s{0,2}:?"""
    r"""|(?P<blank>(?<=\s)))"""
    r"""[\s\[(>|]{0,6}(?:b(?=["']))?)"""
    r"""(?P<value>\\"(?:[^\\"\n]|\\[^"]){1,4096}|\\'(?:[^\\'\n]|\\[^']){1,4096}"""
    r"""|"(?:[^"\\\n]|\\.){1,4096}|'(?:[^'\\\n]|\\.){1,4096}"""
    r"""|(?i:bearer|basic|token|digest|apikey|negotiate)\s{1,4}[^\s"'&,;<>()\[\]{}\\]{1,4096}"""
    r"""|[^\s"'&,;<>()\[\]{}\\]{1,4096})"""
)
_REST_OF_LINE = re.compile(r"""[^"'\r\n\\]*""")
_IN_PARTS = re.compile(r"(?:digest|aws4[\w-]*|signature|oauth|hawk)\s[^\r\n]*", re.IGNORECASE)
"""Authorization schemes with quoted values."""
_PLAIN = frozenset(
    {"null", "none", "true", "false", "required", "missing", "invalid", "must", "is", "not", "was"}
    | {"string", "str", "undefined", "empty", "the", "and", "or", "for", "field", "value"}
    | {"expected", "incorrect", "wrong", "expired", "unknown", "[redacted]", "[redacted"}
)
_SCHEME = re.compile(
    r"(?i:(?<![a-z])(?:bearer|basic|apikey|negotiate|token))[ \t]{1,4}(?P<value>[\w*.~+/=-]{6,})",
    re.ASCII,
)


def _without_named(text: str) -> str:
    kept: list[str] = []
    done = at = 0
    while match := _NAMED.search(text, at):
        start, end = match.span("value")
        if match["line"] and match["direct"] != "=":
            end = max(end, _line_end(text, start))
        if _is_secret(match):
            mark = match["value"][: len(match["value"]) - len(match["value"].lstrip("\\\"'"))]
            kept += (text[done:start], mark, HIDDEN)
            done = at = end
        else:
            at = max(start, at + 1)  # not a credential, but it may be a name itself
    kept.append(text[done:])
    return "".join(kept)


def _line_end(text: str, start: int) -> int:
    """Return where a header's value ends: at a quote or the end of the line."""
    head = text[start : start + 2]
    inside = start + len(head) - len(head.lstrip("\\\"'"))
    match = _IN_PARTS.match(text, inside) or _REST_OF_LINE.match(text, inside)
    return match.end() if match else start


def _is_secret(match: re.Match[str]) -> bool:
    """Whether the value after a credential's name is a credential."""
    value = match["value"].strip("\\\"'`").rstrip(".!?")
    if not value or value.lower() in _PLAIN:
        return False
    if match["blank"] is not None:
        return bool(match["strong"]) and " " not in value and _is_random(value, 8)
    if match["line"]:
        return True
    if match["strong"]:
        certain = match["direct"] or (match["always"] and ":" in match["sep"])
        return len(value) >= 3 and (bool(certain) or not _is_prose(value))
    if _is_assigned(match) and " " not in value and len(value) >= (6 if match["token"] else 8):
        return True
    if " " in value and not value.lower().startswith(("bearer", "basic", "token")):
        return False
    return len(value) >= _LONG or _is_random(value, 8)


def _is_assigned(match: re.Match[str]) -> bool:
    """Whether name and value are written as in code: `token=...`, `"token": ...`."""
    return "=" in match["sep"] or (bool(match["token"]) and match["sep"][0] in "\\\"'")


def _is_prose(value: str) -> bool:
    """Whether a value is only a word."""
    return value.isalpha() and value.islower() and len(value) < 16


# -- by its place in a URL -----------------------------------------------------------

_USER = re.compile(r"""(?<=://)[^\s/"'<>]{1,512}@""")
_QUERY = re.compile(
    r"""(?<=[?&;])(?P<name>[\w.%-]{0,40}(?:key|token|sig|signature|secret|password|passwd|pass|pwd|auth"""
    r"""|credential|code|sid|session)=)[^&\s"'#;<>]{1,4096}""",
    re.IGNORECASE,
)


def without_credentials(text: str) -> str:
    """Return a text without what looks like a credential.

    If one is found under escapes, the text is returned without the escapes.
    """
    return _of_word(text) if len(text) <= _WORD else _without_credentials(text)


def _without_credentials(text: str) -> str:
    shown = below = _searched(text[:_MOST])
    for _ in range(DEPTH):
        before, below = below, plainer(below)
        if below == before:
            break
        found = _searched(below)
        if found.count(HIDDEN) > below.count(HIDDEN):
            shown = below = found
    return shown


_of_word = lru_cache(maxsize=256)(_without_credentials)


def _searched(text: str) -> str:
    text = _USER.sub(f"{HIDDEN}@", text)
    text = _QUERY.sub(rf"\g<name>{HIDDEN}", text)
    text = _without_named(text)
    text = _SCHEME.sub(_hidden_scheme, text)
    return _BY_LOOK.sub(_hidden_look, text)


def _hidden_scheme(match: re.Match[str]) -> str:
    if not _is_random(match["value"], 6):
        return match[0]
    return match[0][: match.start("value") - match.start()] + HIDDEN


def address_without_credentials(url: str) -> str:
    """Return a URL without possible credentials in its path: random segments and parameters.

    Versions, deployments and models consist of words and short numbers, and stay.
    """
    scheme, slashes, rest = url.partition("://")
    host, *segments = rest.split("/")
    shown = [_segment(segment.partition(";")[0]) for segment in segments]
    return without_credentials("/".join((f"{scheme}{slashes}{host}", *shown)))


def _segment(segment: str) -> str:
    pieces = re.split(r"[-_.:@,=~]", segment)
    longest = max(pieces, key=len)
    return HIDDEN if len(longest) >= 16 and _is_random(longest, 16) else segment
