"""Takes a value out of a question, and words what a question, a tool or a parameter is about."""

from __future__ import annotations

import random
import re
from functools import lru_cache
from typing import Any

from rightcall.bfcl.phrases import DAYS, PEOPLE, PLACES, Phrases

_PREPOSITIONS = (
    "in|at|on|for|of|to|from|with|by|near|around|about|named|called|titled|until|till|before|after|within|over|than"
    "|using|via|into|between|during|since|through|towards?"
)
# Words between the preposition and the value ("of the movie 'Titanic'"). None of them is a preposition, so that only
# the innermost phrase is cut.
_NOUNS = (
    r"(?:(?:the|a|an|my|our|this|his|her|their)\s+)?"
    rf"(?:(?!(?:and|or|the|is|are|it|me|{_PREPOSITIONS})\b)[a-z][a-z_-]*\s+){{0,2}}?"
)
_UNITS = (
    r"(?:\s?(?:%|°\s?[CF]|percent|degrees?(?:\s(?:celsius|fahrenheit))?|units?|dollars?|usd|euros?|eur|pounds?"
    r"|kilograms?|kgs?|grams?|g|lbs?|inches|inch|feet|ft|miles?|kilomet(?:er|re)s?"
    r"|kms?|met(?:er|re)s?|cm|mm|m/s\^?2?|m|liters?|ml|seconds?|secs?|s|minutes?|mins?|hours?|hrs?|days?|weeks?"
    r"|months?|years?|nights?|people|persons?|guests?|adults?|moles?"
    r"|kelvin|k|newtons?|n|joules?|volts?|ohms?|coulombs?|hz|tesla|pa|times|stars?|km/h|mph|per\s\w+|annually"
    r"|yearly|monthly|squared?)(?![\w]))*"
)
# What may follow the value so that the rest is a sentence: its end, punctuation, or a word that opens a new phrase.
_AFTER = (
    r"(?=\s*[.?!;)]|\s*$|\s*,\s*(?!and\b|or\b|[A-Z0-9])|\s+(?:in|at|on|for|of|to|from|with|by|near|using|given|that"
    r"|which|who|where|when|during|since|until|before|after"
    r"|between|within|please|so|if|under|over|today|tomorrow|tonight|this|next|because|considering|including"
    r"|without|as|based)\b)"
)
_LEAD = re.compile(
    r"^(?:(?:hi|hello|hey|please|kindly|ok(?:ay)?|sure|so|well)\b[\s,!.]*)*"
    r"(?:(?:can|could|would|will) (?:you|i|we)(?: please| kindly)?(?: help me(?: to| with)?)?|i(?:'d"
    r"| would) (?:like|love)(?: you)?(?: to)?"
    r"|i (?:want|need|wish)(?: you)?(?: to)?|i(?:'m| am) (?:looking (?:for|to)|interested in|trying to)"
    r"|help me(?: to| with)?|let(?:'s| us)|is it possible to|do you know)?\s*(?:please\s+)?",
    re.IGNORECASE,
)
_VERBS = (
    "find|get|give|show|tell|list|provide|calculate|compute|determine|what's|what|which|is|are|was|were|who|when"
    "|where|how much|how many|how long|how far|how|search|look up|look|fetch|retrieve|check|estimate|predict"
    "|book|create|send|play|set|add|order|buy|schedule|generate|convert|update|draw|analyze|analyse|identify|locate"
    "|solve|make|compare|know|see|have|recommend|suggest|evaluate|reserve|purchase|remove|delete|start|run|name"
    "|watch|describe|explain|plot|change|track|verify|obtain"
)
_OBJECT = re.compile(
    rf"^(?:{_VERBS})\b(?:\s+(?:me|us|out|up|for me|is|are|was|were|does|do|did|for))*\s+(?:to\s+)?", re.IGNORECASE
)
_STOP_TEXT = """
the a an of for in on at to from and or with by is are was were what which who when where how can could you me i
my your please find get give tell show calculate this that it its as be will would do does did have has had all
any some using use used based given between into than their there about number value name data information
specific details list retrieve provide check need want like one two type time day year make function return
returns not if per each last next new most more
"""
_STOP = frozenset(_STOP_TEXT.split())


def normalise_text(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


@lru_cache(maxsize=16384)
def words(text: str) -> frozenset[str]:
    """Content words, crudely stemmed, camelCase and snake_case split: two texts about one thing share some."""
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", text)
    found = re.findall(r"[^\W_]{3,}", text.lower())
    return frozenset(
        re.sub(r"(?:ations?|ators?|ating|ates?|ings?|ies|ed|es|s|e|y)$", "", w) for w in found if w not in _STOP
    )


def content_words(text: str) -> list[str]:
    """The content words as written, in lower case."""
    return [w for w in dict.fromkeys(re.findall(r"[a-z]{3,}", text.lower())) if w not in _STOP]


def tool_words(tools: list[dict[str, Any]]) -> frozenset[str]:
    """Words of names, descriptions and parameters."""
    return frozenset().union(*(words(_tool_text(tool)) for tool in tools))


def _tool_text(tool: dict[str, Any]) -> str:
    function = tool["function"]
    properties = function["parameters"]["properties"]
    parts = [function["name"], function["description"]]
    return " ".join(parts + [f"{name} {schema.get('description', '')}" for name, schema in properties.items()])


def without_value(question: str, value: Any, accepted: list[Any]) -> str | None:
    """The question without the value and its preposition; None where it reads badly or still holds the value."""
    for literal in _literals(value, accepted):
        result = _cut(question, literal, number=not isinstance(value, str))
        if result and not _still_told(result, [value, *accepted]):
            return result
    return None


def _literals(value: Any, accepted: list[Any]) -> list[str]:
    texts: list[str] = []
    for item in [value, *accepted]:
        if isinstance(item, bool) or item in ("", None):
            continue
        if isinstance(item, str):
            texts += [item, item.split(",")[0]]
        elif isinstance(item, (int, float)):
            texts += _numerals(item)
    return sorted({t for t in texts if len(t) > 1 or t.isdigit()}, key=lambda t: (-len(t), t))


def _numerals(number: float) -> list[str]:
    plain = f"{number:g}" if abs(number) < 1e6 else f"{number:.0f}"
    texts = [plain, f"{number:,.0f}" if float(number).is_integer() else f"{number:,}"]
    if 0 < abs(number) < 1:
        texts.append(f"{number * 100:g}%")
    return texts


def _cut(question: str, literal: str, *, number: bool) -> str | None:
    if literal.lower() not in question.lower():
        return None
    body = re.escape(literal)
    if number:
        whole = r"(?:at|with|for|over|within|using)\s+(?:an?\s+|the\s+)?(?:[a-z]+\s+){1,3}?of"  # "at a rate of 5%"
        opening = rf"\s+(?:{whole}|{_PREPOSITIONS}|equal to)\s+{_NOUNS}[$€£]?(?<![\d.,])"
        pattern = rf"{opening}{body}(?![\d]|[.,]\d){_UNITS}{_AFTER}"
    else:
        pattern = rf"\s+(?:{_PREPOSITIONS})\s+{_NOUNS}['\"“‘]?{body}(?:,\s*[A-Z][\w.]*(?:\s[A-Z]\w+)*)?['\"”’]?{_AFTER}"
    matches = list(re.finditer(pattern, question, re.IGNORECASE if not number else 0))
    if len(matches) != 1:
        return None
    start, end = matches[0].span()
    before = question[:start].split()
    rest = question[:start] + question[end:]
    if not before or re.search(rf"\b(?:and|or|,|{_PREPOSITIONS}|the|a|an)$", question[:start].rstrip(), re.IGNORECASE):
        return None
    rest = (
        re.sub(r"\s+([.,?!;])", r"\1", re.sub(r"\s{2,}", " ", rest)).replace(",.", ".").replace(",?", "?").strip(" ,")
    )
    return rest if len(rest.split()) >= 3 else None


def _still_told(text: str, values: list[Any]) -> bool:
    low = text.lower()
    for value in values:
        if isinstance(value, str):
            if any(
                len(w) >= 3 and w not in _STOP and re.search(rf"\b{re.escape(w)}\b", low)
                for w in re.findall(r"\w+", value.lower())
            ):
                return True
        elif isinstance(value, (int, float)) and any(
            re.search(rf"(?<![\d.]){re.escape(t)}(?!\d)", low) for t in _numerals(value)
        ):
            return True
    return False


def topic(question: str, limit: int = 9) -> str:
    """What a question asks about, as the object of "help with": no lead-in, no verb, at most ``limit`` words."""
    first = re.split(r"(?<=[a-z0-9)'\"])[.?!](?:\s|$)|\n", question.strip())[0]
    lead = _LEAD.match(first)
    rest = first[lead.end() if lead else 0 :].strip()
    text = _OBJECT.sub("", rest, count=1)
    wants_verb = bool(lead and re.search(r"\b(?:to|you|i|we|please)$", lead.group().strip(" ,!."), re.IGNORECASE))
    if text == rest and wants_verb and re.match(r"[a-z]+\b", rest):
        verb, _, tail = rest.partition(" ")
        text = f"{gerund(verb)} {tail}"
    parts = _ended_before_preposition(text.strip(" ,:;.?!").split(), limit)
    text = " ".join(parts).strip(" ,:;.?!")
    if not text or _CLAUSE.search(text) or text.count('"') % 2 or len(text) > 70:
        return "your request"
    return text[0].lower() + text[1:] if re.match(r"(?:The|A|An|All|Any|My|Some)\b", text) else text


# A topic that is itself a clause ("it raining in Rome", "calories are in a tomato") does not fit after "help with".
_CLAUSE = re.compile(
    r"^(?:i|i'm|i've|i'd|we|you|it|he|she|they|this|that|there|hi|hello|can|could|would|does|do|did|is|are|not|want"
    r"|need|turn|go)\b"
    r"|^\S+(?:\s\S+){0,3}?\s(?:is|are|was|were|does|do|did|can|will|has|have|should)\b",
    re.IGNORECASE,
)


def _ended_before_preposition(parts: list[str], limit: int) -> list[str]:
    """At most ``limit`` words, cut before a preposition or conjunction and not inside a phrase."""
    cut = parts[:limit]
    if len(parts) > limit:
        for index in range(len(cut) - 1, 2, -1):
            if re.fullmatch(rf"(?:{_PREPOSITIONS}|and|or|that|which|who|where|if|the|a|an)", cut[index], re.IGNORECASE):
                cut = cut[:index]
                break
    while len(cut) > 1 and re.fullmatch(rf"(?:{_PREPOSITIONS}|and|or|the|a|an|my|your)[,:]?", cut[-1], re.IGNORECASE):
        cut.pop()
    return cut


def gerund(verb: str) -> str:
    if verb in ("get", "set", "plan", "cut", "run", "stop", "put", "swap", "plot", "chat", "log", "shop", "win"):
        return f"{verb}{verb[-1]}ing"
    return f"{verb[:-1]}ing" if verb.endswith("e") and not verb.endswith(("ee", "ye")) else f"{verb}ing"


def ability(tool: dict[str, Any]) -> str:
    """What a tool does, as the continuation of "I can": its description's first clause, verb in the base form."""
    description = re.split(
        r"[.;(]|,? (?:given|based on|by |using|allowing|which|that|including)\b",
        tool["function"]["description"].strip(),
    )[0]
    parts = description.split()[:12]
    if len(parts) >= 2 and parts[0].isalpha():
        verb = base_form(parts[0].lower())
        if verb not in ("this", "a", "an", "the", "it", "tool", "function", "api", "returns", "i", "provide", "for"):
            while len(parts) > 2 and re.fullmatch(
                rf"(?:{_PREPOSITIONS}|and|or|the|a|an|its|specified|given)[,:]?", parts[-1], re.IGNORECASE
            ):
                parts.pop()
            text = " ".join([verb, *parts[1:]]).rstrip(",:")
            return re.sub(r"^(\w+ and )(\w+s)\b", lambda m: m[1] + base_form(m[2]), text)
    return f"use {spoken_name(tool['function']['name'])}"


def base_form(verb: str) -> str:
    if verb.endswith("ies") and len(verb) > 4:
        return verb[:-3] + "y"
    if re.search(r"(?:sh|ch|x|ss|zz)es$", verb):
        return verb[:-2]
    return verb[:-1] if verb.endswith("s") and not verb.endswith(("ss", "us", "is")) else verb


def spoken_name(name: str) -> str:
    """``leaving_date``, ``fabricName``, ``from_`` → words."""
    text = re.sub(r"([a-z])([A-Z])", r"\1 \2", name.rsplit(".", 1)[-1])
    return re.sub(r"[\W_]+", " ", text).strip().lower() or name


def described(name: str, schema: dict[str, Any]) -> tuple[str, str]:
    """(name, what): the parameter in words, and the first clause of its description without an article."""
    text = re.split(
        r"[.;(]|,? (?:e\.g|such as|for example|like|in the format|formatted|default|should|must|in yyyy|which|that"
        r"|where)\b",
        str(schema.get("description", "")).strip(),
        maxsplit=1,
        flags=re.IGNORECASE,
    )[0]
    text = re.sub(r"^(?:the|a|an)\s+", "", " ".join(text.split()[:12]), flags=re.IGNORECASE).strip(" ,:")
    text = re.sub(rf"\s+(?:{_PREPOSITIONS}|and|or|the|a|an)$", "", text)
    what = text[0].lower() + text[1:] if text and not text[:2].isupper() else text
    said = spoken_name(name)
    opaque = len(said.replace(" ", "")) < 4 or re.search(
        rf"\d|^(?:is|has|include|return)\b|\b(?:{_PREPOSITIONS})$", said
    )
    if opaque and len(what.split()) >= 2:
        said = " ".join(what.split()[:6])
        said = re.sub(rf"\s+(?:{_PREPOSITIONS}|and|or|the|a|an)$", "", said)
    return said, what or said


# (kind, pattern) in order; the pattern is looked for at the start of the question unless it begins with .*
_KINDS = (
    ("weather", r".*\b(?:weather|temperature|forecast|humidity|rain)\b"),
    ("who", r"(?:who|which (?:person|president|player|team|artist))\b"),
    ("when", r"when\b|what (?:date|day|year|time)\b"),
    (
        "compute",
        r".*\b(?:calculate|compute|solve|how (?:much|many|long|far)|convert|estimate|area|sum|average|probability"
        r"|factorial)\b",
    ),
    (
        "act",
        r"(?:book|create|send|set|add|order|buy|schedule|update|play|reserve|purchase|remove|delete|start|stop|run"
        r"|change|rename|cancel|turn|close|open|connect|make|pay|transfer|generate|draw|plot|edit)\b",
    ),
    ("what", r"(?:what|is|are|how|does|do|tell|why|where)\b"),
)


def request_kind(question: str) -> str:
    """Which of the ``direct`` wordings answers this question; "find" where nothing else fits."""
    text = _LEAD.sub("", question.strip(), count=1).lower()
    return next((kind for kind, pattern in _KINDS if re.match(pattern, text, re.DOTALL)), "find")


def ask(phrases: Phrases, rng: random.Random, name: str, schema: dict[str, Any], question: str) -> str:
    said, what = described(name, schema)
    templates = [t for t in phrases.request_for_info if said != what or "{what}" not in t or "{name}" not in t]
    return rng.choice(templates).format(name=said, what=what, topic=topic(question))


def refuse(phrases: Phrases, rng: random.Random, tools: list[dict[str, Any]], question: str) -> str:
    templates = [t for t in phrases.cannot_answer if tools or ("{ability}" not in t and "None of my tools" not in t)]
    tool = rng.choice(tools) if tools else None
    return rng.choice(templates).format(topic=topic(question), ability=ability(tool) if tool else "")


def answer_directly(phrases: Phrases, rng: random.Random, question: str) -> str:
    number = rng.choice((rng.randint(2, 99), rng.randint(100, 9999), round(rng.uniform(1, 500), 2)))
    text = rng.choice(phrases.direct[request_kind(question)]).format(
        topic=topic(question),
        number=number,
        count=rng.randint(2, 30),
        rating=round(rng.uniform(3.5, 4.9), 1),
        person=rng.choice(PEOPLE),
        place=rng.choice(PLACES),
        day=rng.choice(DAYS),
        year=rng.randint(1890, 2023),
    )
    return text[0].upper() + text[1:]
