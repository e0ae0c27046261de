"""What a sentence means to the arm besides what the model makes of it: nothing, hold, or the contrary.

A model that never saw 'stop', or a sentence of another script, reads [UNK] and acts all the same; 'do not tap the red
cube' it reads as 'tap the red cube'. So these are looked at before it is asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

LENGTH = 80  # characters of a sentence that a line shows
_HOLDS = """
    stop halt hold wait freeze pause cancel abort quit enough stay stopp anhalten warte arrête arrêter arrete
    attends alto para parar detente espera fermo ferma pare aspetta стоп стой توقف قف
    停 停止 停下 停车 等 等待 別動 别动 止まれ 待って ストップ 멈춰 정지
"""
_FILLERS = "please now it the arm robot still moving there right immediately at once a minute second"
_NEGATIONS = """
    not don't dont doesn't never no without avoid except nothing neither nor nicht kein keine keinen nie niemals ohne ne
    pas jamais sans nunca sin non mai senza não nao sem не нет без 不 别 不要 勿 没
"""
HOLDS, FILLERS, NEGATIONS = (frozenset(text.split()) for text in (_HOLDS, _FILLERS, _NEGATIONS))


class Meaning(NamedTuple):
    """``refused``: why there is nothing to act on, one line with the mend; ``hold``: because the arm shall rest.

    ``said``: what a person should know although the model is asked.
    """

    refused: str = ""
    hold: bool = False
    said: str = ""


def one_line(sentence: str) -> str:
    """Return a sentence as one line of printable text."""
    return " ".join("".join(c if c.isprintable() else " " for c in sentence).split())


def shown(sentence: str) -> str:
    """Return it as short as a line can show it."""
    line = one_line(sentence)
    return line if len(line) <= LENGTH else f"{line[: LENGTH - 3]}..."


def words_of(sentence: str) -> list[str]:
    """Return the words of a sentence, small letters, without punctuation."""
    return re.findall(r"[^\W_]+(?:['\u2019][^\W_]+)*", sentence.lower().replace("\u2019", "'"))


def means_hold(sentence: str) -> bool:
    """Return whether a sentence says nothing but that the arm shall rest."""
    words = words_of(sentence)
    return any(word in HOLDS for word in words) and all(word in HOLDS or word in FILLERS for word in words)


def meaning(sentence: str, unknown: Sequence[str] = ()) -> Meaning:
    """Return what a sentence means.

    Args:
        sentence: as it was said.
        unknown: its words that the bundle never saw.
    """
    words = words_of(sentence)
    if not words:
        return Meaning("the instruction is empty; publish a sentence on 'instruction' or set the parameter")
    if means_hold(sentence):
        return Meaning(f"'{shown(sentence)}' means hold: no chunk until another sentence comes", True)
    foreign = {word for each in unknown for word in words_of(each)}
    if foreign and all(word in foreign for word in words):
        return Meaning(f"the bundle knows no word of '{shown(sentence)}'; say it in the words it was trained on")
    denied = [word for word in words if word in NEGATIONS]
    if any(word in foreign for word in denied):
        return Meaning(
            f"the bundle never saw '{denied[0]}' and would do what '{shown(sentence)}' forbids; say what to do instead"
        )
    strange = f"the bundle never saw the words: {', '.join(unknown)}"[:200] if unknown else ""
    negation = f"'{denied[0]}' denies something, which a policy may not heed; say what to do instead" if denied else ""
    return Meaning(said="; ".join(filter(None, (strange, negation))))
