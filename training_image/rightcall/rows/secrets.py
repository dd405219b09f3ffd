"""Credentials in what was logged: replaced by [REDACTED:<kind>] before anything is stored.

E-mail addresses, zip codes, names and order numbers stay: an agent's arguments are made of them.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"  # the n of a line's end in JSON is no letter before it
# Names of fields: of a token its kind, so that a page's or a parser's is none.
_TOKEN_FIELD = r"(?:access|api|auth|bearer|id|refresh|security|session|x-auth|x-access)[_-]?token"  # noqa: S105 - a pattern
_SECRET_FIELD = r"(?:[\w.-]*[_.-])?(?:secret|clientsecret|secret[_-]?(?:access[_-]?)?key|private[_-]?key)"  # noqa: S105
_KEY_FIELD = r"(?:[\w.-]*[_.-])?(?:api|access)[_-]?key"
# Kind; what a text must have to match, in small letters, looked for first because it is fast; pattern.
# In this order: what a whole block or a known prefix tells comes before what its surroundings tell.
_PATTERNS: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("private_key", "private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)),
    ("aws_key", "akia|asia", re.compile(rf"{_START}(?:AKIA|ASIA)[A-Z0-9]{{16}}(?![A-Za-z0-9])")),
    ("aws_secret", "secret", re.compile(
        r"(?i)(?<=secret)(?:_?access)?_?key[\"'\\]*\s*[:=]\s*[\"'\\]*([A-Za-z0-9/+=]{40})(?![A-Za-z0-9/+=])"
    )),
    ("jwt", "eyj", re.compile(_START + r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}")),
    ("url_password", "://", re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@\"']*:(?!\[REDACTED)([^\s/@\"']+)@")),
    ("url_secret", "=", re.compile(r"(?i)[?&](?:\w*[_-]?token|secret|password|api_?key|sig|signature)=(?!\[REDACTED)([^&\s\"'\\]{6,})")),
    ("bearer_token", "bearer", re.compile(rf"(?i){_START}" r"bearer\s+((?=[^\s\"']*\d)[\w.~+/-]{16,}=*)")),
    ("authorization", "authorization", re.compile(
        rf"(?i){_START}" r"authorization[\"'\\]*\s*[:=]\s*[\"'\\]*(?:(?:basic|bearer|token|digest|apikey|negotiate)\s+(?!\[REDACTED)"
        r"|(?=[^\s\"'\\,;}]*\d)(?=[^\s\"'\\,;}]{12}))([^\s\"'\\,;}]{6,})"
    )),
    ("api_key", "sk-|k_|hf_|ghp_|gho_|ghu_|ghs_|ghr_|github_pat|glpat|xox|aiza|npm_|pypi-", re.compile(
        _START + r"(?:sk-[\w-]{20,}|[sr]k_(?:live|test)_\w{16,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{30,}"
        r"|github_pat_\w{40,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}|AIza[\w-]{35}|npm_[A-Za-z0-9]{36}|pypi-AgEI[\w-]{20,})"
    )),
    ("api_key", "key|secret|token", re.compile(
        rf"(?i){_START}" r"(?:api|access|client)[_ -]?(?:key|secret|token)[\"'\\]*\s*[:=]\s*[\"'\\]*"
        r"((?=\S*\d)[\w.~+/-]{12,}=*)"
    )),
    # of a field of JSON all of it
    ("token", "token", re.compile(rf"(?i)\"(?:token|{_TOKEN_FIELD})\\*\"\s*:\s*\\*\"(?!\[REDACTED)([^\"\\\s]{{6,}})")),
    ("secret", "secret|private", re.compile(rf"(?i)\"{_SECRET_FIELD}\\*\"\s*:\s*\\*\"(?!\[REDACTED)([^\"\\]+)")),
    ("api_key", "key", re.compile(rf"(?i)\"{_KEY_FIELD}\\*\"\s*:\s*\\*\"(?!\[REDACTED)([^\"\\]+)")),
    ("password", "passwd|password", re.compile(r"(?i)(?:password|passwd)\\*\"\s*:\s*\\*\"(?!\[REDACTED)([^\"\\]+)")),
    ("password", "passwd|password|pwd", re.compile(
        r"(?i)(?:password|passwd|(?<![a-z])pwd)[\"'\\]*\s*[:=]\s*[\"'\\]*(?!\[REDACTED|null\b)([^\s\"'\\,;}]{6,})"
    )),
)  # fmt: skip
_MARKED = [(kind, marks.split("|"), pattern) for kind, marks, pattern in _PATTERNS]
_PASSWORD = re.compile(r"(?i).*(?:password|passwd)")  # a field's name
_DIGITS = re.compile(
    r"(?<![\w.#/-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5})(?![\w/-]|\.\d)"
)
# First digits and lengths of the issuers; one number in ten passes the check digit by chance.
_CARD = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|35\d{14}|62\d{14,17}"
)


def redact_texts(value: Any, found: Counter[str]) -> Any:
    """Every text by what it looks like, whatever its field is called: a schema's `password` is no password."""
    if isinstance(value, str):
        return redact_text(value, found)
    if isinstance(value, dict):
        return {name: redact_texts(each, found) for name, each in value.items()}
    return [redact_texts(each, found) for each in value] if isinstance(value, list) else value


def redact_text(text: str, found: Counter[str]) -> str:
    """The text without its secrets; ``found`` counts them by kind."""
    has = text.lower().__contains__
    for kind, marks, pattern in _MARKED:
        if any(map(has, marks)):
            text = pattern.sub(lambda match, kind=kind: _placeholder(match, kind, found), text)  # type: ignore[misc]
    return _DIGITS.sub(lambda match: _card(match.group(), found), text)


def redact(value: Any, found: Counter[str]) -> Any:
    """The same in every text of a message or record, names of fields aside; an unchanged value is the same object."""
    if isinstance(value, str):
        return (_redacted_json(value, found) or redact_text(value, found)) if len(value) > 7 else value
    if isinstance(value, int) and not isinstance(value, bool):
        card = _card(str(value), found)
        return value if card == str(value) else card
    if isinstance(value, dict):
        return {name: _field(name, each, found) for name, each in value.items()}
    return [redact(each, found) for each in value] if isinstance(value, list) else value


def redact_record(record: dict[str, Any], found: Counter[str]) -> dict[str, Any]:
    """All of a conversation's record but its tools: a schema's example or description is none of the user's secrets."""
    return {name: value if name == "tools" else redact(value, found) for name, value in record.items()}


def _field(name: Any, value: Any, found: Counter[str]) -> Any:
    """A value that its name makes a secret, as in {"password": "…"}, or several of them in a list."""
    if isinstance(value, list):
        return [_field(name, each, found) for each in value]
    if isinstance(value, str) and value:
        if _PASSWORD.fullmatch(str(name)):  # all of it, a sentence too
            if value.startswith("[REDACTED"):
                return value
            found["password"] += 1
            return "[REDACTED:password]"
        if (clean := _redacted_json(value, found)) is not None:
            return clean
        shown = f'"{name}": "{value}"'
        counts: Counter[str] = Counter()
        kept = redact_text(shown, counts)
        if kept != shown and kept.startswith(f'"{name}": "') and kept.endswith('"'):
            found.update(counts)
            return kept[len(f'"{name}": "') : -1]
    return redact(value, found)


def _redacted_json(text: str, found: Counter[str]) -> str | None:
    """Each value of JSON, as calls and results are: as text a number's placeholder would have no quotes. None = no JSON."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    counts: Counter[str] = Counter()
    try:
        written = json.loads(text)
        clean = redact(written, counts)
    except (ValueError, RecursionError):  # what is wrong with it, the reader of the record says
        return None
    found.update(counts)
    return text if clean == written else json.dumps(clean, ensure_ascii=False)


def _placeholder(match: re.Match[str], kind: str, found: Counter[str]) -> str:
    found[kind] += 1
    whole, mark = match.group(), f"[REDACTED:{kind}]"
    if not match.re.groups:
        return mark
    start, end = (each - match.start() for each in match.span(1))
    return whole[:start] + mark + whole[end:]


def _card(text: str, found: Counter[str]) -> str:
    digits = re.sub(r"\D", "", text)
    if not _CARD.fullmatch(digits):
        return text
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    if sum(number - 9 * (number > 9) for number in doubled) % 10:
        return text
    found["card_number"] += 1
    return "[REDACTED:card_number]"
