"""Wordings of the answers derived from BFCL: one list to train on, another to evaluate with.

The two lists share no template: a model that learned the training phrases by heart gains nothing on the evaluation
items. In both, each behaviour has short and long, apologising and plain, asking and stating templates, so that length,
an apology or a question mark alone does not show the behaviour.

Slots: {name} the parameter in words · {what} the parameter's description · {topic} what the user asked about ·
{ability} what one offered tool does · {number}, {count}, {rating}, {person}, {place}, {day}, {year} made-up facts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phrases:
    request_for_info: tuple[str, ...]
    cannot_answer: tuple[str, ...]
    direct: dict[str, tuple[str, ...]]  # by kind of request, see rightcall.bfcl.text.request_kind


TRAINING = Phrases(
    request_for_info=(
        "Which {name} should I use?",
        "What is the {name}?",
        "I still need the {name}.",
        "Please tell me the {name} first.",
        "Sure. What {name} do you have in mind?",
        "Could you give me the {name}? I mean the {what}.",
        "I can do that once I know the {name}.",
        "Sorry, the {name} is missing from your message. Which one is it?",
        "Happy to help! Before I start, please share the {name}.",
        "I'm afraid I can't start yet: you haven't told me the {name}.",
        "One detail is missing, the {name}. Send it over and I will continue.",
        "To help with {topic}, I need one more thing from you: the {name}.",
        "Of course. Could you please specify the {name}?",
        "My apologies, but I need to know the {name} before I can go on. Could you provide it?",
        "Let me know the {name} ({what}) and I'll take care of it.",
        "Could you please provide the {name} so that I can look into {topic}?",
    ),
    cannot_answer=(
        "I can't do that.",
        "I can't help with {topic}.",
        "Sorry, that is not something I can do here.",
        "None of my tools can do this.",
        "I'm unable to help with that, since I don't have a suitable tool. Is there anything else you need?",
        "I'm sorry, I don't have the ability to handle {topic}.",
        "Unfortunately this is outside of what I can do. Please try a dedicated service for {topic}.",
        "My apologies, I'm not able to assist with {topic}. You may find it on a specialised website.",
        "There is no function available to me for {topic}.",
        "I don't have access to anything that covers {topic}, so I have to pass on this one.",
        "What I have here can only {ability}, so I can't answer this.",
        "I'm limited to what my tools do: I can {ability}, but not what you ask. Would that help instead?",
        "That goes beyond my capabilities, I'm afraid.",
        "I have no way to look that up. Could you check another source?",
        "Apologies, but I lack the functionality for {topic}. I'd recommend asking an expert or searching online.",
        "No tool for this, sorry.",
    ),
    direct={
        "compute": (
            "It is {number}.",
            "The result is {number}.",
            "For {topic}, the answer comes to about {number}.",
            "Working it out step by step, {topic} gives {number}. Shall I explain the steps?",
            "Sure! I calculated {topic}: {number}.",
        ),
        "find": (
            "Here is what I found for {topic}: three good options, the best one rated {rating}.",
            "I found {count} results for {topic}. The first one is called {person}'s Choice.",
            "For {topic}, the top result is in {place}, rated {rating} out of 5. Want to hear more?",
            "Sure, {topic}: {place}, {person} and {count} others match.",
            "Looking at {topic}, I would go with the one in {place}.",
        ),
        "act": (
            "Done.",
            "All set, I took care of {topic}.",
            "It's done! The confirmation number is {number}.",
            "I have completed {topic} for you. Is there anything else?",
            "Sure, {topic} was finished on {day}, and everything went well.",
        ),
        "who": (
            "That was {person}.",
            "It was {person}, in {year}.",
            "The answer is {person}, who became known for it in {year}.",
            "As far as I know, {person} from {place}. Do you want more details?",
        ),
        "when": (
            "That was on {day}, {year}.",
            "It is on {day}.",
            "It happened in {year}, in {place}.",
            "According to most sources, {day}, {year}. Anything else you'd like to know?",
        ),
        "what": (
            "It is {number} at the moment.",
            "Regarding {topic}: it is mainly found in {place}, and {person} described it in {year}.",
            "For {topic}, the current figure is {number}, up from last year.",
            "Right now {topic} stands at {number}. Does that help?",
            "In short, it is known from {place} since {year}.",
        ),
        "weather": (
            "It is {count}°C and partly cloudy.",
            "For {topic}: light rain, {count} degrees, wind from the west.",
            "Expect a sunny day with up to {count}°C. Take some water with you!",
            "Currently {count} degrees with a humidity of {number} percent. Anything else?",
        ),
    },
)

EVALUATION = Phrases(
    request_for_info=(
        "May I have the {name}?",
        "What {name} would you like?",
        "The {name}, please.",
        "Your request doesn't mention the {name}.",
        "Gladly! Just tell me which {name} you mean.",
        "In order to proceed, I'd like to ask you for the {name}.",
        "Apologies, I didn't catch the {name}. What is it?",
        "I'm missing some information here: the {what}.",
        "Okay, {topic}. And the {name}?",
        "Before I can take this on, I have to know the {name}.",
        "It seems the {name} was not given. Would you mind adding it?",
        "I'd be glad to look at {topic}, but the {name} is not clear to me yet.",
        "Sorry for asking, but I can't proceed without the {name}.",
        "Thanks for reaching out. To assist you better, may I ask for the {name}, i.e. the {what}?",
    ),
    cannot_answer=(
        "That isn't possible for me.",
        "I'm afraid {topic} is not something I cover.",
        "I apologize, but this task is not within my reach.",
        "My functions don't include that.",
        "Regrettably I cannot provide {topic}, as no function of mine serves this purpose.",
        "Sorry, I'm not equipped for {topic}. Would you like to try a different request?",
        "It looks like I have nothing at hand to deal with {topic}.",
        "As an assistant with a fixed set of functions, I can't fulfil this. A search engine may be of use.",
        "I wish I could help, but {topic} needs a capability that I was not given.",
        "The functions at my disposal don't fit what you are asking for.",
        "All I could offer is to {ability}, which does not answer your question.",
        "Not supported here. Perhaps another application handles {topic}?",
        "Providing {topic} is not among the things I was set up for.",
        "Please turn to someone else for this one, as I cannot perform it.",
    ),
    direct={
        "compute": (
            "That makes {number}.",
            "You get {number}.",
            "I worked out {topic} and arrived at {number}.",
            "{number} is the value you are looking for. Do you need it rounded?",
        ),
        "find": (
            "There are {count} matches for {topic}, for example one run by {person} in {place}.",
            "My suggestion for {topic} would be {place}: it has a score of {rating}.",
            "Certainly, have a look at these: {person}, {place} and {count} more.",
            "A popular pick for {topic} is the one by {person}. Does it sound good?",
        ),
        "act": (
            "Consider it done.",
            "Okay, {topic} went through under reference {number}.",
            "I've just finished {topic}. Need anything more?",
            "Certainly. Everything about {topic} has been processed as of {day}.",
        ),
        "who": (
            "I believe it's {person}.",
            "{person} did, back in {year}.",
            "This goes back to {person} of {place}, around {year}. Curious about something else?",
        ),
        "when": (
            "The date is {day}, {year}.",
            "It took place in {place} on {day}.",
            "You can expect it on {day}. Should I add something?",
        ),
        "what": (
            "Currently {number}.",
            "As to {topic}, the latest value reported is {number}.",
            "{topic}: mostly {place}, with about {number} in {year}.",
            "I see {number} for {topic}. Was this what you wanted?",
        ),
        "weather": (
            "Clear skies at {count} degrees.",
            "You will have clouds with some sun and {count}°C.",
            "As to {topic}, it looks dry, around {count}°C by noon. Shall I go on?",
        ),
    },
)
PEOPLE = ("James Whitfield", "Maria Delgado", "Helen Okafor", "Peter Lindqvist", "Anna Kowalska", "Samuel Reed")
PLACES = ("Portland", "Lisbon", "Denver", "Osaka", "Manchester", "Toronto", "Vienna", "Cape Town")
DAYS = ("March 14", "June 3", "September 21", "January 9", "May 30", "November 12")
