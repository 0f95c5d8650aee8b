"""The words of the embedded text world, grouped by what they mean.

Everything here is written for this project. Synonyms share a row and are interchangeable in every
sentence; antonyms exclude each other, so that in this world a thing that was bought was not sold.
"""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """The four forms of a verb that the grammar needs."""

    base: str
    third: str
    past: str
    participle: str


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _verb(text: str) -> Verb:
    forms = text.split("/")
    return Verb(forms[0], forms[1], forms[2], forms[-1])


def _rows(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row.split("=")) for row in text.split())


def _verbs(text: str) -> tuple[tuple[Verb, ...], ...]:
    return tuple(tuple(_verb(verb) for verb in row.split("=")) for row in text.split())


WOMEN = _words("ada cora eva hana june lena nora pia rosa tess")
MEN = _words("ben dan finn gus ivo kai milo otto sam tom")
NAMES = WOMEN + MEN

# Category -> concepts, each a row of synonyms.
THINGS: dict[str, tuple[tuple[str, ...], ...]] = {
    "animal": _rows("dog=hound cat fox hen=chicken goat horse duck rabbit=hare pig=hog"),
    "tool": _rows("hammer spade=shovel saw axe=hatchet rake drill"),
    "vehicle": _rows("cart=wagon boat=ship train bike=bicycle car=automobile"),
    "dish": _rows("soup=broth bread cake pie cheese salad"),
    "instrument": _rows("drum flute harp fiddle=violin horn=trumpet guitar"),
    "garment": _rows("coat=jacket hat=cap scarf=shawl shirt boot=shoe belt"),
}
PLACES = _rows(
    "barn=shed garden=yard kitchen forest=woods market=bazaar harbor "
    "school tower village cave=grotto"
)

# Row pairs (0, 1), (2, 3), ... are antonyms; the rows after OPPOSED_VERBS have none.
VERBS = _verbs(
    "buy/buys/bought=purchase/purchases/purchased sell/sells/sold "
    "find/finds/found=discover/discovers/discovered lose/loses/lost=misplace/misplaces/misplaced "
    "fix/fixes/fixed=repair/repairs/repaired break/breaks/broke/broken=wreck/wrecks/wrecked "
    "hide/hides/hid/hidden=conceal/conceals/concealed "
    "show/shows/showed/shown=display/displays/displayed "
    "lift/lifts/lifted=raise/raises/raised drop/drops/dropped=lower/lowers/lowered "
    "push/pushes/pushed=shove/shoves/shoved pull/pulls/pulled=drag/drags/dragged "
    "clean/cleans/cleaned=wash/washes/washed soil/soils/soiled "
    "draw/draws/drew/drawn=sketch/sketches/sketched "
    "watch/watches/watched=observe/observes/observed "
    "carry/carries/carried=haul/hauls/hauled "
    "borrow/borrows/borrowed "
    "choose/chooses/chose/chosen=select/selects/selected"
)
OPPOSED_VERBS = 14

# Row pairs are antonyms here too; colours have none.
ADJECTIVES = _rows(
    "big=large small=little old=ancient new=modern heavy=weighty light quick=fast slow=sluggish "
    "clear=plain strange=odd costly=expensive cheap full=filled empty=vacant "
    "red blue green brown black white yellow"
)
OPPOSED_ADJECTIVES = 14

GOOD = _words("lovely superb splendid delightful charming great wonderful brilliant pleasant fine")
BAD = _words("awful nasty dreadful horrid dull gloomy rotten terrible boring grim")
LIKED = _words("adored enjoyed praised admired loved")
DISLIKED = _words("hated loathed scorned despised cursed")

TIMES = ("today", "yesterday", "at noon", "at dawn", "last week", "on monday")
