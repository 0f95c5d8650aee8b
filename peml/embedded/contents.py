"""What the examples of the embedded suite say: one builder per task, from label to sentences.

A builder draws sentences for which the wanted label is true by construction, so there is no label
noise. How they become prompts is the business of `peml.embedded.suite`; the pre-training corpus
dresses contents of its own share in other words (`peml.embedded.corpus`).
"""

from __future__ import annotations

import random

from peml.embedded import lexicon
from peml.embedded.grammar import (
    OBJECTS,
    article,
    changed,
    opposite,
    place_of,
    quality_of,
    random_event,
    realise,
    verb_of,
    without,
)
from peml.embedded.senses import SENSES

Content = tuple[str, ...]


def _noun(rng: random.Random) -> str:
    return rng.choice(rng.choice(OBJECTS)[1])


def _place(rng: random.Random) -> str:
    return rng.choice(rng.choice(lexicon.PLACES))


def _opinion(rng: random.Random, good: bool) -> str:
    thing = f"the {_noun(rng)}"
    if rng.random() < 0.6:
        thing += f" in the {_place(rng)}"
    if rng.random() < 0.5:
        return f"{thing} was {rng.choice(lexicon.GOOD if good else lexicon.BAD)}"
    verbs = lexicon.LIKED if good else lexicon.DISLIKED
    return f"{rng.choice(lexicon.NAMES)} {rng.choice(verbs)} {thing}"


def sentiment(rng: random.Random, label: int) -> Content:
    """Return ``(sentence,)`` that is negative (0) or positive (1).

    Plain opinions, negated ones, and contrasts, where the main clause decides.
    """
    good = label == 1
    kind = rng.choice(("plain", "plain", "negated", "contrast"))
    if kind == "plain":
        return (_opinion(rng, good),)
    if kind == "contrast":
        return (f"although {_opinion(rng, not good)}, {_opinion(rng, good)}",)
    thing = f"the {_noun(rng)} in the {_place(rng)}"
    if rng.random() < 0.5:
        return (f"{thing} was not {rng.choice(lexicon.BAD if good else lexicon.GOOD)}",)
    return (f"nobody {rng.choice(lexicon.DISLIKED if good else lexicon.LIKED)} {thing}",)


def entailment(rng: random.Random, label: int) -> Content:
    """Return ``(premise, hypothesis)``: entailed (0), left open (1) or contradicted (2)."""
    event = random_event(rng, quality=True, place=True, opposed=True)
    if label == 0:
        premise = realise(rng, event, voice=rng.choice(("active", "fronted")))
        kind = rng.choice(("less", "less", "category", "someone", "not opposite"))
        less = without(event, rng.choice(("quality", "place")))
        voice = rng.choice(("active", "passive"))
        if kind == "not opposite":
            return premise, realise(rng, opposite(less, "verb"), negated=True)
        return premise, realise(
            rng, less, voice=voice, category=kind == "category", someone=kind == "someone"
        )
    if label == 1:
        open_part = rng.choice(("quality", "place"))
        dropped = rng.choice(("quality", "place", "neither"))
        told = without(event, open_part)
        asked = event if dropped == open_part else without(event, dropped)
        premise = realise(rng, told, voice=rng.choice(("active", "fronted")))
        negated = rng.random() < 0.2
        return premise, realise(
            rng, asked, voice=rng.choice(("active", "passive")), negated=negated
        )
    premise = realise(rng, event, voice=rng.choice(("active", "fronted")))
    kind = rng.choice(("negated", "verb", "quality"))
    less = without(event, rng.choice(("place", "neither")))
    voice = rng.choice(("active", "passive"))
    if kind == "negated":
        return premise, realise(rng, less, voice=voice, negated=True)
    return premise, realise(rng, opposite(less, kind), voice=voice)


def paraphrase(rng: random.Random, label: int) -> Content:
    """Return ``(first, second)`` that tell different (0) or the same (1) events.

    Different events mostly differ by an antonym; some, which are harder to tell, by other parts.
    """
    event = random_event(rng, quality=True, place=rng.random() < 0.6, opposed=True)
    first = realise(rng, event, voice=rng.choice(("active", "fronted")))
    other = event
    if label == 0:
        kind = rng.choice(("verb", "verb", "quality", "quality", "parts"))
        if kind == "parts":
            for part in rng.sample(("agent", "verb", "thing", "quality"), 2):
                other = changed(rng, other, part)
        else:
            other = opposite(event, kind)
    second = first
    while second == first:
        second = realise(rng, other, voice=rng.choice(("active", "passive", "fronted")))
    return first, second


def plural(noun: str) -> str:
    """Return the plural of one of the lexicon's nouns."""
    return noun + ("es" if noun.endswith(("x", "s", "ch", "sh")) else "s")


def acceptability(rng: random.Random, label: int) -> Content:
    """Return ``(sentence,)`` that is ungrammatical (0) or grammatical (1).

    The mistakes: number agreement across an attractor, noun before adjective, a wrong form after
    "did", a reflexive of the wrong gender, and the wrong indefinite article.
    """
    wrong = label == 0
    verb = rng.choice(rng.choice(lexicon.VERBS))
    adjective = rng.choice(rng.choice(lexicon.ADJECTIVES))
    noun, name = _noun(rng), rng.choice(lexicon.NAMES)
    # No other task's sentences tell a place and a time: none of these can occur there.
    end = f"in the {_place(rng)} {rng.choice(lexicon.TIMES)}"
    kind = rng.choice(("agreement", "agreement", "order", "form", "reflexive", "article"))
    if kind == "agreement":
        subject = rng.choice(rng.choice(lexicon.THINGS["animal"]))
        many = rng.random() < 0.5
        attractor = rng.choice((_noun(rng), plural(_noun(rng))))
        form = verb.base if many != wrong else verb.third
        subject = plural(subject) if many else subject
        return (f"the {subject} near the {attractor} {form} {name} {end}",)
    if kind == "order":
        thing = f"{noun} {adjective}" if wrong else f"{adjective} {noun}"
        return (f"{name} {verb.past} the {thing} {end}",)
    if kind == "form":
        form = rng.choice((verb.past, verb.third)) if wrong else verb.base
        return (f"{name} did not {form} the {noun} {end}",)
    if kind == "reflexive":
        own, other = ("herself", "himself") if name in lexicon.WOMEN else ("himself", "herself")
        return (f"{name} {verb.past} the {noun} for {other if wrong else own} {end}",)
    fitting = article(adjective)
    used = {"a": "an", "an": "a"}[fitting] if wrong else fitting
    return (f"{name} {verb.past} {used} {adjective} {noun} {end}",)


def word_in_context(rng: random.Random, label: int) -> Content:
    """Return ``(word, first, second)``: another (0) or the same (1) sense of the word."""
    word = rng.choice(tuple(SENSES))
    senses = list(SENSES[word])
    rng.shuffle(senses)
    if label == 1:
        contexts = rng.sample(senses[0].contexts, 2)
    else:
        contexts = [rng.choice(sense.contexts) for sense in senses]
    first, second = (_tell(rng, context) for context in contexts)
    return word, first, second


def _tell(rng: random.Random, context: str) -> str:
    sentence = context.format(n=rng.choice(lexicon.NAMES))
    return f"{sentence} {rng.choice(lexicon.TIMES)}" if rng.random() < 0.5 else sentence


def event_question(rng: random.Random, label: int) -> Content:
    """Return ``(sentence, question)``, the question's answer being false (0) or true (1).

    It asks what was done, of what quality the thing was, or, which is harder to tell, where.
    """
    event = random_event(rng, quality=True, place=True, opposed=True)
    kind = rng.choice(("verb", "verb", "quality", "quality", "place"))
    asked = event
    if label == 0:
        asked = changed(rng, event, kind) if kind == "place" else opposite(event, kind)
    thing = rng.choice(OBJECTS[event.thing][1])
    if kind == "verb":
        question = f"did {event.agent} {verb_of(rng, asked).base} the {thing}"
    elif kind == "quality":
        question = f"was the {thing} {quality_of(rng, asked)}"
    else:
        question = f"was {event.agent} in the {place_of(rng, asked)}"
    return realise(rng, event), question


def boolean(rng: random.Random, label: int) -> Content:
    """Return ``(passage, question)`` whose answer is false (0) or true (1).

    The passage tells an event, which the question is about, and an opinion on something else.
    """
    sentence, question = event_question(rng, label)
    # With a time, no opinion of a passage is a sentence of the sentiment task.
    opinion = f"{_opinion(rng, rng.random() < 0.5)} {rng.choice(lexicon.TIMES)}"
    sentences = [sentence, opinion]
    rng.shuffle(sentences)
    return ". ".join(sentences), question
