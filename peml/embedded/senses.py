"""Ambiguous words of the embedded text world: two senses each, shown by their contexts."""

from __future__ import annotations

from typing import NamedTuple


class Sense(NamedTuple):
    """One meaning of an ambiguous word: what it is about, and sentences that show it.

    The slot ``{n}`` stands for a person's name.
    """

    topic: str
    contexts: tuple[str, ...]


def _sense(topic: str, lines: str) -> Sense:
    return Sense(topic, tuple(line.strip() for line in lines.strip().splitlines()))


SENSES: dict[str, tuple[Sense, Sense]] = {
    "bank": (
        _sense("water", """
            {n} fished from the bank
            reeds grew along the bank near {n}
            the muddy bank slid into the river
            {n} swam to the other bank
        """),
        _sense("money", """
            {n} kept coins at the bank
            the bank lent gold to {n}
            {n} asked the bank for a loan
            the clerk locked the bank behind {n}
        """),
    ),
    "bat": (
        _sense("beast", """
            a bat flew past {n}
            {n} saw a bat asleep in the cave
            the bat ate moths above {n}
            the furry bat woke near {n}
        """),
        _sense("sport", """
            {n} swung the bat at the ball
            the wooden bat of {n} cracked
            {n} hit the ball with a bat
            {n} held the bat and ran for the team
        """),
    ),
    "bark": (
        _sense("tree", """
            {n} peeled the bark off the oak
            moss grew on the bark
            the rough bark of the oak hurt {n}
            {n} carved a heart into the bark
        """),
        _sense("sound", """
            the bark of the hound woke {n}
            {n} heard a loud bark
            a sudden bark scared {n}
            the puppy gave {n} a happy bark
        """),
    ),
    "ring": (
        _sense("jewel", """
            {n} wore a ring on the finger
            the gold ring of {n} shone
            {n} wed with a silver ring
            a ring with a gem was given to {n}
        """),
        _sense("sound", """
            the ring of the phone woke {n}
            {n} heard the ring of the bell
            a loud ring called {n} to the door
            the ring of the alarm scared {n}
        """),
    ),
    "spring": (
        _sense("season", """
            flowers bloom in spring for {n}
            {n} plants seeds every spring
            after winter came spring
            the birds return to {n} in spring
        """),
        _sense("metal", """
            the spring inside the clock of {n} snapped
            {n} oiled the rusty spring
            a coiled spring shut the trap
            {n} bent the steel spring
        """),
    ),
    "seal": (
        _sense("beast", """
            a seal ate fish near {n}
            {n} saw a seal swim in the sea
            the seal slept on the ice
            the wet seal barked at {n}
        """),
        _sense("paper", """
            {n} pressed the seal into wax
            the seal on the letter broke
            the king put a royal seal on the scroll
            {n} stamped the page with a seal
        """),
    ),
    "crane": (
        _sense("beast", """
            a crane flew over the lake
            {n} saw the crane feed its chick
            the crane spread its white wings near {n}
            the crane of {n} laid an egg
        """),
        _sense("machine", """
            the crane hoisted steel beams for {n}
            {n} drove the crane at the dock
            a crane loaded the freight of {n}
            the engine of the crane failed {n}
        """),
    ),
    "trunk": (
        _sense("beast", """
            the elephant curled its trunk around {n}
            a long trunk sprayed {n}
            the elephant drank with its trunk
            {n} fed nuts to the trunk of the elephant
        """),
        _sense("luggage", """
            {n} packed the trunk for the trip
            {n} locked robes in the trunk
            the porter carried the trunk for {n}
            the travel trunk of {n} had no lid
        """),
    ),
    "pen": (
        _sense("paper", """
            {n} wrote a note with a pen
            the pen of {n} ran out of ink
            {n} signed the page with the pen
            a leaky pen stained the desk of {n}
        """),
        _sense("farm", """
            the sheep stood in the pen
            {n} shut the calves in the pen
            {n} built a fence around the pen
            the lambs fled the muddy pen of {n}
        """),
    ),
    "match": (
        _sense("sport", """
            {n} won the match
            the team of {n} lost the match
            {n} scored twice in the match
            a crowd cheered {n} at the match
        """),
        _sense("fire", """
            {n} lit the candle with a match
            the match burned the thumb of {n}
            {n} struck a match in the dark
            the flame of the match warmed {n}
        """),
    ),
    "nail": (
        _sense("body", """
            {n} bit a nail on the thumb
            the nail on the toe of {n} hurt
            {n} trimmed each nail on the hand
            {n} has polish on one nail
        """),
        _sense("metal", """
            {n} drove a nail into the plank
            the rusty nail bent
            {n} hung the picture on a nail
            a steel nail held the beams of {n}
        """),
    ),
    "palm": (
        _sense("body", """
            {n} read the lines on the palm
            a coin lay on the open palm of {n}
            {n} held a seed in the palm
            the palm and thumb of {n} hurt
        """),
        _sense("tree", """
            {n} slept in the shade of a palm
            nuts fell from the tall palm
            {n} climbed the palm on the beach
            the leaves of the palm shaded {n}
        """),
    ),
    "bow": (
        _sense("weapon", """
            {n} shot an arrow with the bow
            the hunter bent the bow
            {n} aimed the bow at the target
            an archer gave {n} a strong bow
        """),
        _sense("ribbon", """
            {n} wore a pink bow in the hair
            a silk bow closed the gift of {n}
            {n} tied the ribbon in a bow
            the gift from {n} had a neat bow
        """),
    ),
    "wave": (
        _sense("water", """
            a wave rolled over the beach
            the tall wave sank the raft of {n}
            {n} swam under the wave
            a cold wave from the sea soaked {n}
        """),
        _sense("body", """
            {n} greeted the crowd with a wave
            a wave of the hand called {n}
            the wave of the queen cheered {n}
            {n} left with a smile and a wave
        """),
    ),
    "key": (
        _sense("door", """
            {n} opened the lock with a key
            the key fit the door of {n}
            {n} turned the key in the gate
            the rusty key of {n} stuck in the lock
        """),
        _sense("music", """
            {n} pressed a key on the piano
            one key of the piano was out of tune
            the song of {n} was in a low key
            {n} sang the tune in a high key
        """),
    ),
    "chest": (
        _sense("body", """
            the heart beat in the chest of {n}
            {n} felt a pain in the chest
            {n} has a cold in the chest
            {n} crossed both arms on the chest
        """),
        _sense("luggage", """
            the pirate buried the chest
            {n} opened the lid of the chest
            {n} kept robes and gold in the chest
            the oak chest of {n} had a lock
        """),
    ),
}  # fmt: skip
TOPICS = tuple(sorted({sense.topic for pair in SENSES.values() for sense in pair}))
