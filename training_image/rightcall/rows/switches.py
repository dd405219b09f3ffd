"""Which messages of a record are trained on: a switch at the message, under any of the names that are in use.

{"role": "assistant", "content": "…", "weight": 0}   OpenAI; train, training (Axolotl), loss (ms-swift), loss_mask,
                                                     trainable; masked (torchtune) means the opposite
"""

from __future__ import annotations

from typing import Any

from rightcall.errors import DataError

_WHEN_ON = {**dict.fromkeys(("weight", "train", "training", "trainable", "loss_mask", "loss"), True), "masked": False}
_PARTLY = ("train_detail", "training_detail", "loss_scale")  # of single characters, or by a factor
SWITCHES = frozenset((*_WHEN_ON, *_PARTLY))


def switch_of(message: Any) -> bool | None:
    """Whether the message is trained on; None = it does not say.

    Raises:
        DataError: ``bad_switch`` when a value is neither 0 nor 1, two contradict each other, or it is on at a message
            that is not the assistant's.
    """
    if not isinstance(message, dict) or SWITCHES.isdisjoint(message):
        return None
    given = {name: message[name] for name in message if name in SWITCHES and message[name] is not None}
    said = set()
    for name, value in given.items():
        if name in _PARTLY or not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise DataError(
                f"{name} is {value!r}; a turn is trained on (weight 1) or context (weight 0), as a whole",
                reason="bad_switch",
            )
        said.add(bool(value) == _WHEN_ON[name])
    if len(said) > 1:
        raise DataError(f"a message has {given!r}, which contradict each other; leave one", reason="bad_switch")
    if True in said and message.get("role") != "assistant":
        raise DataError(
            f"{given!r} at a message of the {message.get('role')!r}; only the assistant's turns can be trained on",
            reason="bad_switch",
        )
    return next(iter(said), None)


def switched_on(raw: Any, turns: list[int]) -> list[int] | None:
    """Those of these turns that are trained on; None = no message has a switch.

    Raises:
        DataError: as ``switch_of``; ``nothing_trained`` when all of them are off.
    """
    if not isinstance(raw, list):
        return None
    switches = [switch_of(message) for message in raw]
    if switches.count(None) == len(switches):
        return None
    on = [turn for turn in turns if switches[turn] is not False]
    if not on:
        raise DataError(
            f"all {len(turns)} turns of the assistant are switched off (weight 0); there is nothing to train on, drop the row",
            reason="nothing_trained",
        )
    return on
