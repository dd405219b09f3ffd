"""What agents of a shop say: guessed as a reader would, whatever politeness stands around it."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from rightcall.rows.vocabulary import BEHAVIOURS
from rightcall.toolcalls import phrases, words
from rightcall.toolcalls.words import MEASURED, guess_behaviour

SENTENCES = Path(__file__).parents[1] / "support" / "said"  # {language: {what it does: [sentence, …]}}

CLASS = re.compile(r"\[(?:\\.|[^\]])*\]")
UNBOUNDED = re.compile(r"[^\\](?:[*+]|\{\d*,\})")

SAID = {
    "request_for_info": [
        "For order #W5765741 I will run cancel pending order (reason: ordered by mistake). Do you confirm (yes/no)?",
        "Here are the details of the exchange: the backpack in black for $193.38. Does that look right? Please reply 'yes' to confirm.",
        "To confirm, you want to cancel order #W1 because it was ordered by mistake. Is that correct? Once confirmed, I will proceed.",
        "The refund of $54.04 goes to your PayPal account. Shall I go ahead with the return?",
        "I will update the address to 10 Oak Street. Would you like to proceed? (yes or no)",
        "Please note that this cannot be undone. Please confirm with a yes and I will cancel the order.",
        "Thank you, Omar. Kindly provide the order number you would like to return.",
        "I just need your zip code to find the account.",
        "I couldn't find an account with that email. Could you give me your full name and zip code instead?",
        "Sorry for the confusion. Which of the two orders do you mean, #W1 or #W2?",
        "Let me know if you'd like to go ahead with this change.",
        "Would you prefer Mexican, Chinese, or something else?",
        "The available options are:\n1. Black, $52\n2. Blue, $49\nWhich one would you like?",
        "How would you like to receive the refund: to the gift card or to PayPal?",
        "I'll need to verify your identity first. What's your email address?",
    ],
    "cannot_answer": [
        "I'm sorry, but this order was delivered and can't be cancelled.",
        "Orders that have been processed cannot be modified.",
        "I'm not able to share information about another user's order.",
        "That is against our policy, so I must decline this request.",
        "Unfortunately I can only help with one user per conversation. Is there anything else I can help you with?",
        "This item isn't eligible for a refund to another card.",
        "Our policy does not allow a change of the payment method after delivery. Would you like me to transfer you to a human agent?",
        "I'm sorry, I can't give a discount on this order. Let me know if you need help with anything else.",
        "It is no longer possible to change the address of this order.",
        "I apologize for the inconvenience, but I cannot split a refund over two cards.",
        "I don't have a tool to track couriers. If you have any other questions, feel free to ask.",
    ],
    "direct": [
        "Done. Anything else I can help you with?",
        "That is completed. Is there anything else?",
        "You're welcome. Have a great day!",
        "Your order #W1 has been cancelled. Please let me know if you have any other questions.",
        "The return is requested; you will get an email with instructions. If you need any further assistance, please let me know!",
        "I apologize for the inconvenience. Your refund of $54.04 has been processed and takes 5 to 7 days.",
        "I'm sorry to hear about your damaged kettle. I have requested the return of order #W1.",
        "YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON.",
        "Thank you, Omar. I found your account. How can I help you today?",
        "Your address was updated. If there's anything else you need, feel free to ask.",
        "Your order #W1 contains an Electric Kettle ($158.90) and a Wall Clock ($195.59). The total is $354.49.",
        "You don't have any pending orders. Your last order, #W1, was delivered.",
        "Order #W1 has two items and its status is pending. Let me know if you would like anything else.",
        "The difference of $12.10 was charged to gift_card_1. Don't hesitate to reach out if you need more help.",
        "Sorry for the wait. The tracking number is 674931187716.",
    ],
}


@pytest.mark.parametrize(("behaviour", "said"), [(name, said) for name, texts in SAID.items() for said in texts])
def test_an_agents_words_say_what_it_does(behaviour: str, said: str) -> None:
    assert guess_behaviour(said) == behaviour


@pytest.mark.parametrize(
    "said", ["let me know if you have any more ", "shall i proceed ", "sorry for the ", "or something else "]
)
def test_a_model_that_repeats_itself_is_read(said: str) -> None:
    """The patterns look at the end of a text only, and at a sentence at a time."""
    assert guess_behaviour(said * 5_000) in {"direct", "request_for_info", "cannot_answer"}


def read(name: str) -> list[tuple[str, str, str]]:
    """(language, what it does, sentence)"""
    languages = json.loads((SENTENCES / f"{name}.json").read_text(encoding="utf-8"))
    return [(key, does, said) for key, kinds in languages.items() for does, texts in kinds.items() for said in texts]


def test_the_error_that_the_report_quotes_is_the_one_on_the_held_out_sentences() -> None:
    sentences = read("held_out")
    found = Counter((does, guess_behaviour(said)) for _, does, said in sentences)
    assert {(does, taken): n for does, row in MEASURED.items() for taken, n in row.items()} == found
    assert len(sentences) >= 350
    assert len({language for language, _, _ in sentences}) >= 9
    assert not {said for _, _, said in sentences} & {said for _, _, said in read("development")}


def test_the_sentences_that_the_phrases_were_written_against_stay_right() -> None:
    wrong = [said for _, does, said in read("development") if guess_behaviour(said) != does]
    assert len(wrong) <= 3, wrong


@pytest.mark.parametrize(
    ("said", "behaviour"),
    [
        ("Ich kann das nicht stornieren, kann ich sonst noch helfen?", "cannot_answer"),
        ("Je ne peux pas ouvrir ce dossier. Quel est son numéro ?", "request_for_info"),
        ("«Quel est votre nom ?» se dit “What is your name?” en anglais.", "direct"),
        ("お名前を教えてください", "request_for_info"),
        ("哪一天", "direct"),  # without a question mark nothing says so
        ("Ваш заказ готов?", "request_for_info"),  # a language without phrases: its question marks are read
    ],
)
def test_other_languages_are_read_by_the_same_rule(said: str, behaviour: str) -> None:
    assert guess_behaviour(said) == behaviour


def test_no_repetition_of_a_pattern_is_without_a_bound() -> None:
    """So that a text costs what its length says: an unbounded one made 2,000 characters cost 265 ms."""
    compiled = {name: value for name, value in vars(words).items() if isinstance(value, re.Pattern)}
    for role in (phrases.IGNORED, phrases.OFFERS, phrases.ASKS, phrases.REFUSES):
        compiled |= {f"{role._role} {number}": pattern for number, pattern in enumerate((role._spaced, role._unspaced))}
    assert len(compiled) > 15
    unbounded = {name: UNBOUNDED.findall(CLASS.sub("x", pattern.pattern)) for name, pattern in compiled.items()}
    assert {name: found for name, found in unbounded.items() if found} == {}
    assert all(set(row) <= set(BEHAVIOURS) for row in MEASURED.values())
