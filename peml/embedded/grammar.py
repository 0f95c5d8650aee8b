"""Meanings of the embedded text world and the sentences that express them.

A meaning is a small tuple of concepts (indices into the lexicon); a sentence is one of its many
realisations. Tasks are built by changing the meaning and then realising both versions.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import Any

from peml.embedded import lexicon
from peml.embedded.lexicon import Verb

OBJECTS: tuple[tuple[str, tuple[str, ...]], ...] = tuple(
    (category, row) for category, rows in lexicon.THINGS.items() for row in rows
)


@dataclass(frozen=True)
class Event:
    """Someone did something to a thing, perhaps of some quality, perhaps somewhere.

    Attributes:
        agent: A name.
        verb: Row of `lexicon.VERBS`.
        thing: Index into `OBJECTS`.
        quality: Row of `lexicon.ADJECTIVES`, or None.
        place: Row of `lexicon.PLACES`, or None.
    """

    agent: str
    verb: int
    thing: int
    quality: int | None = None
    place: int | None = None


def random_event(rng: random.Random, *, quality: bool, place: bool, opposed: bool = False) -> Event:
    """Draw an event; with `opposed`, its verb and quality have antonyms."""
    return Event(
        agent=rng.choice(lexicon.NAMES),
        verb=rng.randrange(lexicon.OPPOSED_VERBS if opposed else len(lexicon.VERBS)),
        thing=rng.randrange(len(OBJECTS)),
        quality=rng.randrange(lexicon.OPPOSED_ADJECTIVES if opposed else len(lexicon.ADJECTIVES))
        if quality
        else None,
        place=rng.randrange(len(lexicon.PLACES)) if place else None,
    )


def article(word: str) -> str:
    """Return the indefinite article that fits `word`."""
    return "an" if word[0] in "aeiou" else "a"


def thing_phrase(rng: random.Random, event: Event, *, category: bool = False) -> str:
    """Return "the large drum", or "an instrument" when only the category is told."""
    kind, names = OBJECTS[event.thing]
    if category:
        return f"{article(kind)} {kind}"
    noun = rng.choice(names)
    return f"the {noun}" if event.quality is None else f"the {quality_of(rng, event)} {noun}"


def verb_of(rng: random.Random, event: Event) -> Verb:
    """Return one of the synonyms that express the event's verb."""
    return rng.choice(lexicon.VERBS[event.verb])


def quality_of(rng: random.Random, event: Event) -> str:
    """Return one of the adjectives that express the quality of the event's thing."""
    if event.quality is None:
        raise ValueError("this event leaves its thing's quality open")
    return rng.choice(lexicon.ADJECTIVES[event.quality])


def place_of(rng: random.Random, event: Event) -> str:
    """Return one of the nouns that name the event's place."""
    if event.place is None:
        raise ValueError("this event leaves its place open")
    return rng.choice(lexicon.PLACES[event.place])


def realise(
    rng: random.Random,
    event: Event,
    *,
    voice: str = "active",
    negated: bool = False,
    category: bool = False,
    someone: bool = False,
) -> str:
    """Return a past-tense sentence for an event, without its full stop.

    Args:
        rng: Chooses among synonyms.
        event: What happened.
        voice: ``active``, ``passive``, or ``fronted`` (the place first; active without a place).
        negated: Say that it did not happen.
        category: Name the thing by its category alone, dropping its quality.
        someone: Leave the agent unnamed.
    """
    verb = verb_of(rng, event)
    thing = thing_phrase(rng, event, category=category)
    place = "" if event.place is None else f"in the {place_of(rng, event)}"
    agent = "someone" if someone else event.agent
    if voice == "passive":
        core = f"{thing} {'was not' if negated else 'was'} {verb.participle} by {agent}"
    elif negated:
        core = f"{agent} did not {verb.base} {thing}"
    else:
        core = f"{agent} {verb.past} {thing}"
    if not place:
        return core
    return f"{place} {core}" if voice == "fronted" else f"{core} {place}"


def opposite(event: Event, part: str) -> Event:
    """Return the event with its ``verb`` or ``quality`` replaced by the antonym."""
    value = getattr(event, part)
    limit = lexicon.OPPOSED_VERBS if part == "verb" else lexicon.OPPOSED_ADJECTIVES
    if value is None or value >= limit:
        raise ValueError(f"this event's {part} has no antonym")
    return dataclasses.replace(event, **{part: value ^ 1})


def changed(rng: random.Random, event: Event, part: str) -> Event:
    """Return the event with another agent, verb, thing, quality or place.

    A part that the event leaves open is filled in.
    """
    sizes = {
        "verb": len(lexicon.VERBS),
        "thing": len(OBJECTS),
        "quality": len(lexicon.ADJECTIVES),
        "place": len(lexicon.PLACES),
    }
    old = getattr(event, part)
    options: list[str] | list[int]
    options = list(lexicon.NAMES) if part == "agent" else list(range(sizes[part]))
    change: dict[str, Any] = {part: rng.choice([o for o in options if o != old])}
    return dataclasses.replace(event, **change)


def without(event: Event, part: str) -> Event:
    """Return the event with its ``quality`` or ``place`` left open; any other part: unchanged."""
    change: dict[str, Any] = {part: None} if part in ("quality", "place") else {}
    return dataclasses.replace(event, **change)
