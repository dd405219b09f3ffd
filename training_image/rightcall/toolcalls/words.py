"""What a text without a call does, guessed from its words: rules for English, and phrases of nine languages."""

from __future__ import annotations

import re

from rightcall.rows.vocabulary import Behaviour
from rightcall.toolcalls.phrases import ASKS, IGNORED, OFFERS, REFUSES

# {what it does: {what it was taken for: sentences}} of the 354 sentences of tests/support/said/held_out.json, in nine
# languages: written before the phrases, which were not changed by them, but by the same hand
MEASURED: dict[Behaviour, dict[Behaviour, int]] = {
    "direct": {"direct": 116, "request_for_info": 1, "cannot_answer": 1},
    "request_for_info": {"direct": 1, "request_for_info": 117},
    "cannot_answer": {"direct": 1, "cannot_answer": 117},
}

_READ_CHARACTERS = 2_000  # of the end of a text; every repetition below is bounded
_CONFIRM_CHARACTERS = 400  # of the end, where a confirmation is asked for
_QUOTED = re.compile(r"(?<!\w)(?:'[^'\n]{2,100}[.?!]'|\"[^\"\n]{2,100}\")(?!\w)")
# "Indian, Italian, or something else?": the end of a list, no offer
_LIST_END = re.compile(r",? or (?:\w{1,30} )?(?:anything|something|any) (?:else|other)(?: \w{1,30})?(?=[ ?.]|\Z)")
_CONFIRM = re.compile(  # whatever stands around it, the other side has to say yes
    r"\byes ?(?:/|or) ?no\b|\bdo you (?:confirm|agree)\b"
    r"|\b(?:shall|should|may|can) i (?:now )?(?:go ahead|proceed|process|submit|place|cancel|finali[sz]e)\b[^.!\n]{0,200}\?"
    r"|\b(?:would you like|do you want)(?: me)? to (?:go ahead|proceed|continue)\b"
    r"|\b(?:is|are|does|do) (?:this|that|it|these|those|everything|all (?:of )?(?:this|that)|the above)"
    r"(?: information| details?)?(?: all| look| sound)? (?:correct|right|accurate)\b"
    r"|\b(?:reply|respond|answer|say|type)(?: with)?[ :]{1,9}[\"'“‘*]{0,3}yes\b"
    r"|\b(?:await|waiting for|wait for) your (?:confirmation|reply|response|answer|approval)\b",
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s{1,99}|\n\s{0,99}")
# "If you need anything else, let me know!": a sentence with all three of these words is a farewell, no question
_INVITES = re.compile(
    r"\b(?:let (?:me|us) know|feel free|hesitate|reach out|contact us|(?:happy|glad|here) to (?:help|assist)|ask)\b",
)
_SHOULD_YOU = re.compile(r"\b(?:if|whenever|should) (?:there|you)\b|\bfeel free\b")
_MORE = re.compile(r"\b(?:any(?:thing|where)?|else|other|more|further|additional|help|assistance|ask)\b")
_POLITE = re.compile(  # said around an answer: no question, no refusal
    r"\b(?:sorry|apologi[sz]e|apologies)(?: again)? (?:to hear|(?:for|about) (?:the|any|your|this|that|all|my|our)"
    r"(?: \w{1,30}){0,2} (?:inconveniences?|confusion|delays?|wait|troubles?|mistakes?|errors?|oversight|misunderstanding"
    r"|frustration|experience|issues?|problems?|mix-up))"
    r"|\bhow (?:else )?(?:can|may|could) (?:i|we) (?:help|assist)\b[^.!?\n]{0,200}\?"
    r"|\b(?:cannot|can['’]t|can not) be (?:undone|reversed|reverted)"
    r"|\byou (?:currently )?(?:do not|don['’]t) have (?:any|a|an|to|other|enough)\b",
)
_OFFER = re.compile(  # a question that is no obstacle: the answer stands before it
    r"\b(?:any(?:thing|where)? (?:else|other|more)|something else"
    r"|(?:would (?:you (?:like|rather|prefer)|that|it|this)|do you want|how about|shall i|should i|can i|may i)\b[^.!?\n]{0,200}\binstead"
    r"|(?:other|another|different) (?:questions?|ways?|requests?|tasks?|sources?|services?)|shall i|want (?:to hear|more)"
    r"|do you (?:want|need) more|do(?:es)? (?:that|this|it) (?:help|sound|answer|look)|(?:is|was) this what"
    r"|should i (?:add|explain|go on|continue)|(?:transfer|connect) you|speak (?:to|with) (?:a|an|our))\b",
)
_TELL = r"provide|specify|tell|share|give|confirm|clarify|verify"
_QUESTION = r"which|what|when|where|who"
_ASKS = re.compile(
    rf"\b(?:(?:could|can|would|may|might|will) (?:you|i have|i get|i know)\b[^\n]{{0,200}}?(?:\?|{_TELL})"
    rf"|please (?:also )?(?:{_TELL}|let me know|indicate|enter|state|mention|choose|select|reply|respond)"
    rf"|kindly (?:{_TELL}|let me know)"
    r"|let me know (?:if|whether) (?:you(?:['’]d| would)? (?:like|want|wish|agree|confirm|prefer)|i (?:should|can|may)|that|this)"
    rf"|(?:just |let me know |tell me |give me )(?:{_QUESTION}|how|the|your|about)"
    r"|(?:i|we)(?:'ll| will| would|'d)?(?: still| also| first| just| only)? need "
    r"(?:to (?:know|confirm)|the|your|a|an|some|more|additional|further)"
    r"|(?:i|we) (?:only )?(?:have|need) (?:one|some)(?: more)? (?:more|thing|detail|information)|(?:have|need) to know"
    r"|(?:once|after|until|as soon as|when) (?:i know|you (?:tell|give|send|provide|share|specify)|i have the)"
    r"|missing|(?:is|are) not (?:yet )?clear|like to ask|(?:can't|cannot|not) (?:proceed|start|go on|continue) (?:without|yet)"
    r"|you (?:haven['’]t|have not|didn['’]t|did not) (?:yet )?(?:tell|told|give|given|say|said|mention|specif|provid|shar)\w{0,30}"
    r"|(?:request|message|question) (?:doesn['’]t|does not) (?:mention|say|specify|include|contain|tell)"
    r"|^the [\w ]{2,40}, please\b"
    rf"|(?:{_QUESTION}|whose|how (?:many|much|long|far|old)|do you|are you|is there|would you|should i|were you)"
    r"\b[^.!?]{0,300}\?)",
)
_REFUSES = re.compile(
    r"\b(?:(?:(?:can?|could|wo|do|does|am|are|is|will|was|would)(?: ?not|n['’]t)|(?:i['’]m|we['’]re|it['’]s|that['’]s) not)"
    r"(?: currently| really| be)? "
    r"(?:able|share|discuss|disclose|help|assist|do|provide|perform|access|complete|process|fulfil\w{0,30}|find|offer|have|cover|support\w{0,30}|handle"
    r"|possible|set up|equipped|suited|answer|carry|execute|retrieve|check|book|make|get|give|tell|see|interact"
    r"|directly|suitable|include|match|fit|deal|allow\w{0,30}|permit\w{0,30}|eligible|change|modify|cancel|return|exchange|refund|issue)"
    r"|unable|cannot|nothing (?:at hand|here|available)|was (?:not|never) given|not among|but not what you|sorry"
    r"|apolog\w{1,30}|unfortunately|outside|beyond (?:my|what|the)|out of scope|lack(?:s)? (?:the|a|any)"
    r"|(?:can['’]t|can not) be|against (?:\w{1,30} )?(?:\w{1,30} )?polic(?:y|ies)|(?:must|have to|need to) (?:deny|decline|refuse)"
    r"|no longer (?:possible|be)|not (?:eligible|allowed|permitted)"
    r"|no (?:\w{1,30} )?(?:tool|function|way|means|capability|access|matching)\w{0,30}|none of"
    r"|not (?:something|possible|supported|available|covered)"
    r"|(?:not|n['’]t) (?:have|possess) (?:the|a|an|any|access))\b",
)


_MARKS = str.maketrans(
    {
        **dict.fromkeys("’‘ʼ", "'"),
        **dict.fromkeys("“”„«»「」『』", '"'),
        **dict.fromkeys("？؟", "?"),
        **dict.fromkeys("。．", ". "),
        **dict.fromkeys("，、", ","),
        **dict.fromkeys("¿¡", "\n"),
        **dict.fromkeys("\xa0\u202f", " "),
        "！": "!",
    }
)


def guess_behaviour(text: str) -> Behaviour:
    """The last question or refusal decides; a text with neither is ``direct``.

    The last, because a polite answer opens with the other ("I can't book that without a date. Which date?"). A closing
    offer ("Is there anything else?", "If you need more help, let me know."), an apology for the wait and quoted speech
    do not count; a question for a yes ("Do you confirm (yes/no)?") is a request for information.

    Of texts that were not written for it, all English: on the 300 SGD and 100 When2Call development items it is right for
    all refusals, 98% of the questions and 86% of the direct answers (SGD's often end in a question), and for 95% of 3,174
    questions of SGD's training rows.
    """
    sentences = _sentences(text[-_READ_CHARACTERS:].translate(_MARKS).lower())
    said = _POLITE.sub("", "\n".join(sentence for sentence in sentences if not _is_farewell(sentence)))
    if _CONFIRM.search(said[-_CONFIRM_CHARACTERS:]):
        return "request_for_info"
    behaviour: Behaviour = "direct"
    last = ""
    for sentence in _sentences(_QUOTED.sub("", said)):
        spoken = IGNORED.without(_without_offer(_LIST_END.sub("", sentence)))
        asks = max(_last(_ASKS, spoken), ASKS.last(spoken))
        refuses = max(_last(_REFUSES, spoken), REFUSES.last(spoken))
        if asks != refuses:
            behaviour = "request_for_info" if asks > refuses else "cannot_answer"
        last = spoken.strip() or last
    return "request_for_info" if last.endswith("?") else behaviour


def _sentences(text: str) -> list[str]:
    """Japanese asks with か at a sentence's end, Chinese with 吗, whatever mark follows."""
    return [
        re.sub(r"(?<=[か吗])\.?\Z", "?", sentence.strip()) for sentence in _SENTENCE_END.split(text) if sentence.strip()
    ]


def _without_offer(sentence: str) -> str:
    """A sentence up to the comma before an offer: "I can't do that, anything else?" refuses."""
    offer = OFFERS.first(sentence)
    if offer is None and "?" in sentence and (found := _OFFER.search(sentence)):
        offer = found.start()
    return sentence if offer is None else sentence[: max(0, sentence.rfind(",", 0, offer))]


def _last(pattern: re.Pattern[str], text: str) -> int:
    """Where the last match ends; -1 = there is none."""
    return max((found.end() for found in pattern.finditer(text)), default=-1)


def _is_farewell(sentence: str) -> bool:
    if "?" in sentence:
        return False
    return all(words.search(sentence) for words in (_INVITES, _SHOULD_YOU, _MORE))
