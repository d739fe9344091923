"""Rows for an adapter that passes LangChain4j's published tests for chat models: calls, results, JSON, German.

The base with 135M parameters calls no tools by itself. The rows have the form of those tests, but other cities and
sentences, so that no test's question is among them.
"""

import json
import random
from typing import Any

from server.openai.chat.structure import BEST_EFFORT as SCHEMA_INSTRUCTION

Line = dict[str, Any]

_CITIES = (
    *("Oslo", "Lyon", "Porto", "Turin", "Ghent", "Krakow", "Seville", "Dublin", "Graz", "Basel", "Bergen", "Malmo"),
    *("Hamburg", "Leipzig", "Toulouse", "Naples", "Antwerp", "Gdansk", "Bilbao", "Cork", "Linz", "Geneva", "Turku"),
    *("Boston", "Denver", "Osaka", "Kyoto", "Lima", "Quito", "Cairo", "Tunis", "Delhi", "Mumbai", "Perth", "Sydney"),
)
_COUNTRIES = (
    "Norway",
    "Portugal",
    "Italy",
    "Belgium",
    "Poland",
    "Spain",
    "Ireland",
    "Austria",
    "Peru",
    "Egypt",
    "India",
)
_WEATHER = ("sunny", "rainy", "cloudy", "windy", "foggy", "snowy")
_COLOURS = ("red", "blue", "yellow", "purple", "orange", "pink", "brown", "white")
_CAPITALS = {
    "Italy": "Rome",
    "Spain": "Madrid",
    "Portugal": "Lisbon",
    "Norway": "Oslo",
    "Poland": "Warsaw",
    "Egypt": "Cairo",
}
_GERMAN = {
    "I love music": "Ich liebe Musik",
    "I love my dog": "Ich liebe meinen Hund",
    "I love him": "Ich liebe ihn",
    "I love winter": "Ich liebe den Winter",
    "I love her": "Ich liebe sie",
    "Good morning": "Guten Morgen",
    "Thank you": "Danke",
    "I am tired": "Ich bin müde",
}
_SAID = ("Good Evening", "Hello Moon", "Hello Friends", "Bright Day", "Hello Ann", "Nice Work")


def _tool(name: str, **properties: str) -> Line:
    schema = {field: {"type": kind} for field, kind in properties.items()}
    parameters = {"type": "object", "properties": schema, "required": []}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def _schema(**properties: Line) -> str:
    """The instruction that tells a model the schema of its answer."""
    schema = {"type": "object", "properties": properties, "required": [], "additionalProperties": False}
    return SCHEMA_INSTRUCTION + json.dumps(schema)


WEATHER = _tool("getWeather", city="string")
TIME = _tool("getTime", country="string")
NOW = _tool("get_current_time")
ADD = _tool("add_two_numbers", a="integer", b="integer")


def rows() -> tuple[list[Line], list[Line]]:
    """Rows to train on and rows held out."""
    dice = random.Random("conformance")
    lines: list[Line] = []
    for city in _CITIES:
        country, weather, time = dice.choice(_COUNTRIES), dice.choice(_WEATHER), _clock(dice)
        question = f"What is the weather in {city}?"
        both = f"What is the weather in {city} and time in {country}? Call tools simultaneously (in parallel)"
        one = [("getWeather", {"city": city})]
        two = [*one, ("getTime", {"country": country})]
        lines += [
            _line([WEATHER], question, one, [weather], f"The weather in {city} is {weather}."),
            _line([WEATHER, TIME], both, two, [weather, time], f"It is {weather} in {city} and {time} in {country}."),
            _line([WEATHER, ADD] if dice.random() < 0.6 else [WEATHER], f"I live in {city}", one),
        ]
    now = "What is the time now? Use the get_current_time tool."
    lines += [
        _line([NOW], now, [("get_current_time", {})], [time := _clock(dice)], f"It is {time}.") for _ in range(12)
    ]
    lines += [
        _talk("Hi, my favorite color is " + one, "Hi, nice to meet you", "What is my favorite color?", f"It is {one}.")
        for one in _COLOURS
    ]
    lines += [_talk(f"Say '{said}'", said) for said in _SAID]
    for country, city in _CAPITALS.items():
        asked = f"What is the capital of {country}? Answer with a JSON object containing a single 'city' field"
        lines.append(_talk(asked, json.dumps({"city": city})))
    for english, german in _GERMAN.items():
        lines.append(_talk(f"Translate: '{english}'", german, system="Translate messages from user into German"))
    said = _schema(weather={"type": "string", "enum": ["sunny", "rainy"]})
    for city in _CITIES[:14]:
        weather = dice.choice(("sunny", "rainy"))
        line = _line([WEATHER], f"What is the weather in {city}?", [("getWeather", {"city": city})], [weather])
        line["messages"][-1]["content"] = json.dumps({"weather": weather})
        lines.append({**line, "messages": [{"role": "system", "content": said}, *line["messages"]]})
    said = _schema(city={"type": "string"})
    for country, city in _CAPITALS.items():
        lines.append(_talk(f"What is the capital of {country}?", json.dumps({"city": city}), system=said))
    dice.shuffle(lines)
    return lines[:-10], lines[-10:]


def _clock(dice: random.Random) -> str:
    return f"{dice.randrange(24):02}:{dice.randrange(60):02}"


def _talk(*turns: str, system: str | None = None) -> Line:
    """Alternating turns of user and assistant, of which the last answer is trained."""
    messages: list[Line] = [{"role": "system", "content": system}] if system else []
    for index, turn in enumerate(turns):
        messages.append({"role": ("user", "assistant")[index % 2], "content": turn})
    for message in messages[:-1]:
        if message["role"] == "assistant":
            message["weight"] = 0
    return {"messages": messages}


def _line(
    tools: list[Line], asked: str, calls: list[tuple[str, Line]], results: list[str] | None = None, answer: str = ""
) -> Line:
    """A question, the calls it needs, and, if given, their results and the answer."""
    made = [
        {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for index, (name, arguments) in enumerate(calls)
    ]
    messages: list[Line] = [{"role": "user", "content": asked}, {"role": "assistant", "tool_calls": made}]
    if results is not None:
        for call, result in zip(made, results, strict=True):
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        messages.append({"role": "assistant", "content": answer})
    return {"messages": messages, "tools": tools}
