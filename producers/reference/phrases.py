"""What people write to a real-estate assistant: the phrases behind datasets.py, written by hand.

The held-out pools say the same things in other words; some phrases would fit two intents, as real ones do.
"""

from collections.abc import Mapping, Sequence
from typing import Final

OUTCOMES: Final = ("qualified", "nurture", "disqualified")
TIMELINES: Final = {"eager": (6, 5, 3, 1, 1, 0), "open": (1, 3, 4, 4, 2, 1), "curious": (0, 1, 2, 4, 5, 5)}

OPENERS: Final = ("", "", "", "hi", "hello", "hey there", "good morning", "quick question:", "so", "ok", "thanks,")
CLOSERS: Final = ("", "", "", "thanks", "please", "let me know", "asap", "no rush", "cheers", "?", "is that possible")

SLOTS: Final[Mapping[str, Sequence[str]]] = {
    "beds": ("two", "three", "four", "2", "3", "4"),
    "price": ("300k", "450k", "half a million", "$380,000", "620000", "700k"),
    "area": ("Old Mill", "the riverside", "Northgate", "Fern Hill", "downtown", "the lake side"),
    "when": ("tomorrow", "on Saturday", "this weekend", "next week", "tonight after 6", "on the 14th"),
    "kind": ("house", "condo", "townhouse", "duplex", "place", "home"),
}

INTENT_TRAIN: Final[Mapping[str, Sequence[str]]] = {
    "search": (
        "looking for a {beds} bedroom {kind} in {area}",
        "show me {kind}s under {price}",
        "do you have anything with {beds} beds near {area}",
        "we want to buy a {kind} with a garden around {price}",
        "find listings in {area} below {price}",
        "any new {kind} on the market in {area}",
        "need a {kind} with a garage and {beds} bedrooms",
        "what {kind}s are available in {area}",
        "what is for sale in {area} right now",
        "budget is {price}, which {kind}s could i buy",
        "searching for a family {kind} with a pool or a big yard",
        "any {beds} bed {kind} where pets are allowed",
    ),
    "sell": (
        "i want to sell my {kind} in {area}",
        "how do i list my {kind} with you",
        "thinking of selling our {beds} bedroom {kind}",
        "can you sell my home by next month",
        "put my {kind} on the market",
        "we are moving and need to sell the {kind}",
        "i would like a listing agreement for my {kind}",
        "ready to sell, what are the steps",
        "what is your commission when i sell",
        "my wife and i own a {kind} and want to sell it",
        "when is the best time to list a {kind}",
        "i inherited a {kind} and want to get rid of it",
    ),
    "viewing": (
        "can i see the {kind} {when}",
        "book a viewing {when}",
        "i want to schedule a tour of the {kind} in {area}",
        "is the open house {when}",
        "when can we visit the {kind}",
        "please arrange a showing {when}",
        "i am free {when} to look at the {kind}",
        "could somebody show us the {beds} bedroom one {when}",
        "could we take a tour of the {kind} {when}",
        "i would love to look inside {when}",
        "open house times in {area}",
        "we want to see it in person",
    ),
    "valuation": (
        "what is my {kind} worth",
        "how much would a {beds} bedroom {kind} in {area} go for",
        "can i get a price estimate for my home",
        "need an appraisal of a {kind} in {area}",
        "is {price} a fair price for a {kind} in {area}",
        "what did similar {kind}s sell for",
        "give me a market value for my {kind}",
        "what could i get for our {kind}",
        "how much is a {kind} in {area} worth",
        "did the value of our {kind} go up",
        "the {kind} next door sold for {price}, what about mine",
        "estimate the price of our {kind}",
    ),
    "finance": (
        "what mortgage can i get for {price}",
        "how much down payment do i need for {price}",
        "what are the interest rates now",
        "can you help with pre approval",
        "monthly payment on {price} over 30 years",
        "do i qualify for a loan with a low credit score",
        "which lenders do you work with",
        "are closing costs included in the mortgage",
        "can we afford {price} with one income",
        "how big is the deposit for a {kind} at {price}",
        "first time buyer loan programs",
        "do i need a pre approval letter",
    ),
    "area": (
        "how are the schools in {area}",
        "is {area} safe at night",
        "how long is the commute from {area}",
        "are there parks and shops near {area}",
        "what is it like to live in {area}",
        "is {area} noisy",
        "tell me about the neighborhood around {area}",
        "any good restaurants in {area}",
        "are the schools near {area} good for kids",
        "how far is the train station from {area}",
        "crime and traffic in {area}",
        "which part of town do people like, {area}",
    ),
    "agent": (
        "let me talk to a real person",
        "can an agent call me {when}",
        "i want to speak to somebody about the {kind}",
        "give me the phone number of your office",
        "stop the bot, connect me with a human",
        "who is my agent",
        "please have someone call back {when}",
        "is there an agent i can meet in {area}",
        "i do not want to chat with a robot",
        "call me {when}",
        "i prefer to talk on the phone",
        "meet with an agent {when}",
    ),
    "cancel": (
        "cancel my viewing {when}",
        "i can not make it {when}",
        "please remove me from the list",
        "we need to reschedule the tour {when}",
        "stop sending me listings",
        "call off the appointment {when}",
        "i no longer want to see the {kind}",
        "we changed our mind about the {kind}",
        "forget the appointment {when}",
        "another day would be better than {when}",
        "take my email off your list",
        "we bought another {kind}, so no viewing",
    ),
}

INTENT_HELDOUT: Final[Mapping[str, Sequence[str]]] = {
    "search": (
        "i am after a {kind} in {area} with {beds} bedrooms",
        "anything for sale around {price} in {area}",
        "send me {kind}s with a pool",
        "we are hunting for our first {kind}, budget {price}",
        "got a {beds} bed {kind} that allows dogs",
        "what can i buy for {price}",
    ),
    "sell": (
        "my parents want to sell their {kind}",
        "what do you charge to sell a {kind}",
        "we would like to list in {area} this spring",
        "need to get rid of my {kind} quickly",
        "is now a good time to sell",
        "i own a {kind} and want out",
    ),
    "viewing": (
        "could we take a look at it {when}",
        "set up a tour {when}",
        "when is the next open house in {area}",
        "i'd love to see that {kind} in person",
        "is the {kind} free for a visit {when}",
        "show it to us {when}",
    ),
    "valuation": (
        "how much is my place in {area} worth now",
        "what would you ask for a {beds} bed {kind}",
        "did prices in {area} go up",
        "estimate for a {kind} built in 1978",
        "my neighbor sold for {price}, is mine the same",
        "value of my {kind}",
    ),
    "finance": (
        "can i afford {price} on my salary",
        "what rate would i pay",
        "do you need a pre approval letter before the offer",
        "how much is the deposit on {price}",
        "loan options for first time buyers",
        "what are the monthly costs for a {price} {kind}",
    ),
    "area": (
        "which schools are close to {area}",
        "is {area} a good place for kids",
        "how far is {area} from the station",
        "what do people think of {area}",
        "crime in {area}",
        "is there much traffic around {area}",
    ),
    "agent": (
        "i'd rather talk to a person",
        "have someone phone me {when}",
        "can i meet an agent {when}",
        "are you a robot, get me a human",
        "what is your office number",
        "who do i call about the {kind}",
    ),
    "cancel": (
        "something came up, not {when}",
        "please cancel {when}",
        "move my appointment from {when} to another day",
        "take me off your mailing list",
        "we found another {kind}, no need for the tour",
        "forget about the viewing",
    ),
}

SELLER_TRAIN: Final[Mapping[str, Sequence[str]]] = {
    "eager": (
        "we have to sell fast, job starts in another city",
        "need to close within 30 days, price is flexible",
        "divorce, we both want the {kind} gone quickly",
        "already bought another {kind} and pay two mortgages",
        "inherited the {kind} and want to sell as is",
        "ready to sign today if the offer is fair",
        "behind on payments and must sell before the bank acts",
        "the {kind} is empty, come and make an offer",
    ),
    "open": (
        "we might sell this year if the price is right",
        "planning to downsize when the kids move out",
        "would sell for {price}, not less",
        "considering an offer but want to fix the roof first",
        "maybe after the summer, depends on the new job",
        "want to know my options before deciding",
    ),
    "curious": (
        "just curious what it is worth",
        "not really looking to sell, only checking",
        "no plans to move, saw your ad",
        "if somebody pays {price} way over market i would think about it",
        "maybe in a few years",
        "my neighbor asked so i wonder too",
    ),
}

SELLER_HELDOUT: Final[Mapping[str, Sequence[str]]] = {
    "eager": (
        "relocating for work and need it sold quickly",
        "we want to close this month, flexible on price",
        "separated, the {kind} has to go",
        "paying for two {kind}s, must sell one",
        "estate sale, as is, come see it",
        "the bank sent a letter, make me an offer fast",
    ),
    "open": (
        "we could sell this year for {price}",
        "after the renovation we may list it",
        "the kids move out soon, thinking of something smaller",
        "depends on the offer, we are not in a hurry",
        "would like to hear my options",
    ),
    "curious": (
        "only checking the price, not moving",
        "curious about the market",
        "perhaps in a couple of years",
        "not for sale unless you pay way too much",
        "saw the ad and wondered",
    ),
}

DISTRICTS: Final = (
    ("Old Mill", 310), ("Riverside", 365), ("Northgate", 240), ("Fern Hill", 280), ("Centre", 420), ("Lakeside", 455),
)  # fmt: skip
STREETS: Final = (
    "Heron Lane", "Mill Street", "Alder Road", "Quarry Hill", "Station Road", "Orchard Way", "Weir Close",
    "Juniper Court", "Sluice Street", "Kestrel Drive", "Bridge Street", "Willow Walk",
)  # fmt: skip
FEATURES: Final = (
    "garage", "garden", "pool", "fireplace", "solar panels", "new roof", "basement", "balcony", "air conditioning",
    "lake view", "home office", "corner lot", "walk-in closet", "renovated kitchen",
)  # fmt: skip
