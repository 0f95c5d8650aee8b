"""The corpus that the embedded models are pre-trained on.

It holds the world's sentences and exercises on them: rewording, topics, opposites, questions with
"who" and "where", judgements in other words and with other answers than the suite's. The suite's
own prompts, and every content of its splits, are left out, so that an untouched model does not
know the six tasks but has what it takes to learn them quickly.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from peml.embedded import lexicon
from peml.embedded.contents import acceptability, event_question, plural
from peml.embedded.grammar import OBJECTS, Event, place_of, random_event, realise, verb_of
from peml.embedded.senses import SENSES, TOPICS
from peml.embedded.suite import FORMS, TASKS, draw, part_of


class Document(NamedTuple):
    """A prompt and what follows it; a story has an empty prompt."""

    prompt: str
    answer: str


_OPPOSED_PAST = tuple(
    tuple(verb.past for verb in row) for row in lexicon.VERBS[: lexicon.OPPOSED_VERBS]
)

# Task -> judgements on its contents: a template, and the answer to each label.
_JUDGEMENTS: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "sentiment": (
        ("{0}. how does that feel, glad or sad?", ("sad", "glad")),
        ("mood: {0}. sunny or cloudy?", ("cloudy", "sunny")),
    ),
    "entailment": (
        ("story: {0}. claim: {1}. is the claim sure, open or wrong?", ("sure", "open", "wrong")),
        ("if {0}, then {1}: always, maybe or never?", ("always", "maybe", "never")),
    ),
    "paraphrase": (
        ("{0}. also: {1}. alike or apart?", ("apart", "alike")),
        ("compare: {0} / {1}. equal or unequal?", ("unequal", "equal")),
    ),
    "acceptability": (
        ("check: {0}. clean or faulty?", ("faulty", "clean")),
        ("{0}. was that said badly or well?", ("badly", "well")),
    ),
    "word_in_context": (
        ("{0} in: {1}. and in: {2}. one idea or two?", ("two", "one")),
        ("word {0}: {1}. also: {2}. shift or stay?", ("shift", "stay")),
    ),
    "boolean": (
        ("{0}. {1}? right or wrong?", ("wrong", "right")),
        ("known: {0}. ask: {1}? deny or admit?", ("deny", "admit")),
    ),
}


# The comparisons of two sentences take the longest to learn.
_SHARES = [{"sentiment": 2, "entailment": 2, "acceptability": 3}.get(task, 4) for task in TASKS]


def judgement(rng: random.Random, task: str | None = None) -> Document:
    """Draw an exercise whose contents are like those of a suite's task, any by default."""
    task = task or rng.choices(TASKS, _SHARES)[0]
    label = rng.randrange(len(FORMS[task].choices))
    template, answers = rng.choice(_JUDGEMENTS[task])
    return Document(template.format(*draw(task, "pretraining", label, rng)), answers[label])


def _small_judgement(rng: random.Random) -> Document:
    """Ask for a comparison or a check in its smallest form, from which the whole one grows."""
    label = rng.randrange(2)
    if rng.random() < 0.5:
        rows = rng.choice((lexicon.ADJECTIVES[: lexicon.OPPOSED_ADJECTIVES], _OPPOSED_PAST))
        index = rng.randrange(len(rows))
        words = rng.choice(rows[index]), rng.choice(rows[index if label == 1 else index ^ 1])
        template, answers = rng.choice(_JUDGEMENTS["paraphrase"])
        return Document(template.format(*words), answers[label])
    template, answers = rng.choice(_JUDGEMENTS["boolean"])
    return Document(template.format(*event_question(rng, label)), answers[label])


def _event(rng: random.Random) -> Event:
    return random_event(rng, quality=rng.random() < 0.5, place=rng.random() < 0.7)


def _story(rng: random.Random) -> Document:
    label = rng.randrange(2)
    opinion = draw("sentiment", "pretraining", label, rng)[0]
    feeling = rng.choice((("frowned", "sighed"), ("smiled", "laughed"))[label])
    sentences = [
        f"{opinion}, so {rng.choice(lexicon.NAMES)} {feeling}",
        draw("acceptability", "pretraining", 1, rng)[0],
        realise(rng, _event(rng), voice=rng.choice(("active", "passive", "fronted"))),
        draw("word_in_context", "pretraining", 1, rng)[1],
    ]
    return Document("", ". ".join(rng.sample(sentences, 2)) + ".")


def _reword(rng: random.Random) -> Document:
    while True:
        event = _event(rng)
        first, second = (
            realise(rng, event, voice=rng.choice(("active", "passive", "fronted")))
            for _ in range(2)
        )
        if first != second and part_of((first, second)) == "pretraining":
            return Document(f"reword: {first}. so:", second)


def _mend(rng: random.Random) -> Document:
    while True:
        state = rng.getstate()
        faulty = acceptability(rng, 0)
        after = rng.getstate()
        # The same draws with the other label give the same sentence without its mistake.
        rng.setstate(state)
        clean = acceptability(rng, 1)
        rng.setstate(after)
        if part_of(faulty) == part_of(clean) == "pretraining":
            return Document(f"mend: {faulty[0]}. better:", clean[0])


def _topic(rng: random.Random) -> Document:
    label = rng.randrange(2)
    word, first, _ = draw("word_in_context", "pretraining", label, rng)
    skeleton = _skeleton(first)
    topic = next(
        sense.topic
        for sense in SENSES[word]
        if any(_skeleton(context.format(n="ada")) == skeleton for context in sense.contexts)
    )
    other = rng.choice([name for name in TOPICS if name != topic])
    options = [topic, other]
    rng.shuffle(options)
    return Document(f"{word} in: {first}. about {options[0]} or {options[1]}?", topic)


def _skeleton(sentence: str) -> str:
    for time in lexicon.TIMES:
        sentence = sentence.removesuffix(f" {time}")
    return " ".join("ada" if word in lexicon.NAMES else word for word in sentence.split())


def _lookup(rng: random.Random) -> Document:
    event = random_event(rng, quality=rng.random() < 0.5, place=True)
    told = realise(rng, event, voice=rng.choice(("active", "passive", "fronted")))
    verb = verb_of(rng, event)
    thing = rng.choice(OBJECTS[event.thing][1])
    return rng.choice(
        (
            Document(f"{told}. where was {event.agent}?", place_of(rng, event)),
            Document(f"{told}. who {verb.past} the {thing}?", event.agent),
            Document(f"{told}. what did {event.agent} {verb.base}?", thing),
        )
    )


def _lexical(rng: random.Random) -> Document:
    kind = rng.choice(
        ("category", "opposite", "synonym", "plural", "verb opposite", "verb synonym")
    )
    if kind == "category":
        category, row = rng.choice(OBJECTS)
        return Document(f"{rng.choice(row)} is a kind of", category)
    if kind == "plural":
        noun = rng.choice(rng.choice(lexicon.THINGS["animal"]))
        return Document(f"more than one {noun}:", plural(noun))
    if kind == "opposite":
        index = rng.randrange(lexicon.OPPOSED_ADJECTIVES)
        word, other = (rng.choice(lexicon.ADJECTIVES[i]) for i in (index, index ^ 1))
        return Document(f"opposite of {word}:", other)
    if kind == "verb opposite":
        index = rng.randrange(lexicon.OPPOSED_VERBS)
        verb, opposed = (rng.choice(lexicon.VERBS[i]) for i in (index, index ^ 1))
        form = rng.randrange(4)
        return Document(f"opposite of {verb[form]}:", opposed[form])
    if kind == "verb synonym":
        pair = rng.sample(rng.choice([row for row in lexicon.VERBS if len(row) > 1]), 2)
        form = rng.randrange(4)
        return Document(f"another word for {pair[0][form]}:", pair[1][form])
    rows = [*lexicon.ADJECTIVES, *lexicon.PLACES, *(row for _, row in OBJECTS)]
    words = rng.sample(rng.choice([row for row in rows if len(row) > 1]), 2)
    return Document(f"another word for {words[0]}:", words[1])


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


_PROMPT_WORDS = sorted(
    {word for form in FORMS.values() for word in _words(" ".join((form.prompt, *form.choices)))}
)


def _pick(rng: random.Random) -> Document:
    """Make the words of the suite's prompts and answers familiar, bare of their use there."""
    words = rng.sample(_PROMPT_WORDS, 3)
    place = rng.randrange(3)
    ordinal = ("first", "second", "third")[place]
    return Document(f"take the {ordinal}: {words[0]}, {words[1]}, {words[2]}.", words[place])


_KINDS: dict[Callable[[random.Random], Document], int] = {
    judgement: 55,
    _small_judgement: 15,
    _story: 5,
    _reword: 8,
    _mend: 4,
    _topic: 7,
    _lookup: 5,
    _lexical: 2,
    _pick: 1,
}


def comparisons(seed: int = 0) -> Iterator[Document]:
    """Yield comparisons without end: what a model has to see first.

    Comparing two words or sentences takes the decoder some 500 steps to find out when it sees
    nothing else, and was not found in 5000 steps of the whole corpus.
    """
    rng = random.Random(f"comparisons/{seed}")
    while True:
        task = rng.choice(("small", "paraphrase", "boolean"))
        yield _small_judgement(rng) if task == "small" else judgement(rng, task)


def documents(seed: int = 0) -> Iterator[Document]:
    """Yield documents without end, the same for the same seed in every process."""
    rng = random.Random(f"corpus/{seed}")
    kinds, weights = list(_KINDS), list(_KINDS.values())
    while True:
        yield rng.choices(kinds, weights)[0](rng)


def vocabulary() -> list[str]:
    """Return every word of the world, its suite and its corpus, sorted."""
    words: set[str] = set(_PROMPT_WORDS)
    for rows in (lexicon.PLACES, lexicon.ADJECTIVES, *lexicon.THINGS.values()):
        words.update(word for row in rows for word in row)
    words.update(form for row in lexicon.VERBS for verb in row for form in verb)
    words.update(lexicon.NAMES, lexicon.THINGS, TOPICS)
    words.update(lexicon.GOOD, lexicon.BAD, lexicon.LIKED, lexicon.DISLIKED)
    words.update(plural(noun) for _, row in OBJECTS for noun in row)
    for pair in SENSES.values():
        for sense in pair:
            words.update(_words(" ".join(sense.contexts).replace("{n}", "")))
    words.update(_words(" ".join(lexicon.TIMES)))
    for forms in _JUDGEMENTS.values():
        words.update(word for form in forms for word in _words(" ".join((form[0], *form[1]))))
    # The remaining function words stand in the templates of the code: a sample shows them all.
    for document in itertools.islice(documents(), 4000):
        words.update(_words(f"{document.prompt} {document.answer}"))
    return sorted(words)
