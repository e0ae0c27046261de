"""How people say what they want: sentences for each kind of task, and the way back from a sentence.

Every kind has phrasings that demonstrations use and others, made of the same words, that are held out: a policy
that follows those has learned more than a list. Directions are the robot's own: left is +y of its base frame.
"""

from __future__ import annotations

import re

# {cube} takes "red cube" or "red block"; {way} a direction's words.
PHRASINGS: dict[str, tuple[str, ...]] = {
    "touch": (
        "touch the {cube}",
        "tap the {cube}",
        "poke the {cube}",
        "press the {cube}",
        "put a finger on the {cube}",
        "reach the {cube}",
        "touch the top of the {cube}",
        "go to the {cube} and tap it",
    ),
    "pick": (
        "pick up the {cube}",
        "pick the {cube}",
        "lift the {cube}",
        "grab the {cube}",
        "take the {cube}",
        "raise the {cube}",
        "lift the {cube} up",
        "take the {cube} off the table",
    ),
    "push": (
        "push the {cube} {way}",
        "shove the {cube} {way}",
        "slide the {cube} {way}",
        "nudge the {cube} {way}",
        "move the {cube} {way}",
        "give the {cube} a push {way}",
        "make the {cube} go {way}",
        "drive the {cube} {way}",
    ),
    "place": (
        "put the {cube} in the tray",
        "place the {cube} in the tray",
        "drop the {cube} in the tray",
        "put the {cube} into the tray",
        "move the {cube} into the tray",
        "take the {cube} to the tray",
        "pick up the {cube} and put it in the tray",
        "bring the {cube} to the tray",
    ),
}
HELD_OUT: dict[str, tuple[str, ...]] = {
    "touch": ("tap the top of the {cube}", "put a finger on top of the {cube}", "go and touch the {cube}"),
    "pick": ("pick the {cube} up", "raise the {cube} off the table", "grab the {cube} and lift it"),
    "push": ("give the {cube} a nudge {way}", "make the {cube} move {way}", "go and push the {cube} {way}"),
    "place": (
        "drop the {cube} into the tray",
        "lift the {cube} and place it in the tray",
        "bring the {cube} into the tray",
    ),
}
NOUNS = ("cube", "block")
WAYS: dict[str, tuple[str, ...]] = {
    "left": ("left", "to the left"),
    "right": ("right", "to the right"),
    "forward": ("forward", "away from you"),
    "back": ("back", "towards you"),
}
_DIRECTION_WORDS = {
    "left": "left",
    "right": "right",
    "forward": "forward|forwards|away",
    "back": "back|backwards|towards",
}
_PUTTING = r"put|place|drop|move|take|bring|carry"
_PUSHING = r"push|shove|slide|nudge|move|drive|go"
_TOUCHING = r"touch|tap|poke|press|finger on|reach|contact"
_PICKING = r"pick|lift|grab|take|raise|grasp|hold"


def kind_and_direction(text: str) -> tuple[str, str] | None:
    """Return the kind of task and the direction (empty but for a push) a sentence asks for, or None.

    A sentence that asks for two kinds, or two directions, asks for none: it is not guessed at.
    """
    words = " ".join(re.findall(r"[a-z]+", text.lower()))
    ways = [way for way, names in _DIRECTION_WORDS.items() if _says(words, names)]
    if _says(words, "tray"):
        return ("place", "") if not ways and _says_verb(words, _PUTTING) else None
    if ways:
        return ("push", ways[0]) if len(ways) == 1 and _says_verb(words, _PUSHING) else None
    kinds = [kind for kind, verbs in (("touch", _TOUCHING), ("pick", _PICKING)) if _says_verb(words, verbs)]
    return (kinds[0], "") if len(kinds) == 1 else None


def _says(words: str, names: str) -> bool:
    return re.search(rf"\b(?:{names})\b", words) is not None


def _says_verb(words: str, verbs: str) -> bool:
    return re.search(rf"\b(?:{verbs})(?:ing|s)?\b", words) is not None
