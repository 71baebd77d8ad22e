"""Random names of containers: an adjective and an animal (moby ``names-generator``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

_ADJECTIVE_WORDS = """
agile airy amber ample azure balmy bold brave breezy brisk bronze calm candid cheery civil clear
clever copper coral cosy crisp curious dapper daring deft dewy eager early earnest easy fabled
fair fancy fleet fluent fond frank fresh frosty gentle gifted glad golden grand hardy hazel
hearty honest humble idle ivory jade jolly keen kind lively loyal lucid lucky lunar mellow merry
mild misty modest neat nimble noble olive patient placid plucky polite proud quick quiet rapid
ready robust rosy ruby rustic sage sandy serene sharp shy silent silver simple sleek snowy sober
solar spry stable steady stoic sunny swift tidy tranquil trusty upbeat velvet vivid warm wary
wise witty young zesty
"""
_ADJECTIVES = tuple(_ADJECTIVE_WORDS.split())

_ANIMAL_WORDS = """
adder alpaca ant auk badger bat bear beaver bee bison boar bobcat buck bulbul caiman camel
canary caribou cat chamois civet cobra condor coot coyote crab crane cricket crow curlew deer
dingo dipper dolphin donkey dove duck dunlin eagle egret eider elk ermine falcon ferret finch
fox frog gannet gazelle gecko gibbon goat goose grebe grouse gull hare hawk heron hoopoe hornet
horse ibex ibis iguana impala jackal jackdaw jay kestrel kite kiwi koala krill lapwing lark
lemur linnet lion lizard llama lobster loon lynx macaw magpie marmot marten merlin mink mole
moose moth mouse newt ocelot octopus okapi orca oriole osprey otter owl panda parrot pelican
perch petrel pigeon pika pipit plover pony puffin puma quail rabbit raccoon raven robin rook
salmon seal serval shrew shrike skua snipe sparrow squid stork swallow swan swift tapir teal
tern thrush tiger toad trout turtle viper vole walrus weasel whale wolf wombat wren yak zebra
"""
_ANIMALS = tuple(_ANIMAL_WORDS.split())


def random_name(taken: Collection[str], randbelow: Callable[[int], int] | None = None) -> str:
    """Return a name that is not in ``taken``: ``brave_otter``, with a number after 5 attempts."""
    pick = randbelow or _randbelow
    for attempt in range(10):
        name = f"{_ADJECTIVES[pick(len(_ADJECTIVES))]}_{_ANIMALS[pick(len(_ANIMALS))]}"
        if attempt > 4:
            name += str(pick(10_000))
        if name not in taken:
            return name
    while True:
        name = f"{_ADJECTIVES[0]}_{_ANIMALS[0]}_{os.urandom(6).hex()}"
        if name not in taken:
            return name


def _randbelow(bound: int) -> int:
    return int.from_bytes(os.urandom(4), "big") % bound
