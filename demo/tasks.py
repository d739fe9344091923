"""Fine-tuning tasks with their generators: ticket -> JSON, support answers in a brand's voice, and such answers with
facts that retrieval puts into the prompt.

Names and products are random syllables, order numbers random digits, and each is used once. So what a test prompt asks
for never occurred in training, and a right answer was copied from the prompt, not remembered.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Message = dict[str, str]


@dataclass(frozen=True)
class Row:
    """A prompt and the one right answer; `right` compares after stripping white space."""

    messages: tuple[Message, ...]
    answer: str

    def right(self, answer: str) -> bool:
        """Whether a model's answer is exactly the right one."""
        return answer.strip() == self.answer

    def jsonl(self) -> str:
        """A line of an OpenAI training file."""
        return json.dumps({"messages": [*self.messages, {"role": "assistant", "content": self.answer}]})


@dataclass(frozen=True)
class Task:
    """A task: its name (the job's suffix), and a function that makes one row."""

    name: str
    title: str
    make: Callable[[random.Random, Iterator[str]], Row]

    def rows(self, train: int, test: int, seed: int = 7) -> tuple[list[Row], list[Row]]:
        """Rows to train on and rows to test with; no name, order number or product occurs in two rows."""
        rng = random.Random(f"{self.name}-{seed}")
        names = entities(rng)
        rows = [self.make(rng, names) for _ in range(train + test)]
        return rows[:train], rows[train:]


_ISSUES = {
    "damaged": ("arrived broken", "has a crack in it", "came with a dent"),
    "late": ("still has not arrived", "is a week overdue", "should have been here days ago"),
    "wrong item": ("is not what I ordered", "is the wrong one", "came in another colour than ordered"),
    "refund": ("is going back, I want my money", "should be refunded, please", "was returned, where is my money"),
}


def _ticket(rng: random.Random, entities: Iterator[str]) -> Row:
    customer, product, order = next(entities), next(entities), next(entities)
    issue = rng.choice(list(_ISSUES))
    phrase = rng.choice(_ISSUES[issue])
    text = rng.choice(
        (
            f"Hi, {customer} here. My {product} {phrase}. Order {order}.",
            f"Order {order}: the {product} {phrase}. Regards, {customer}",
            f"This is {customer}. In order {order} the {product} {phrase}.",
        )
    )
    answer = {"customer": customer, "order": order, "product": product, "issue": issue}
    system = {"role": "system", "content": "Turn the ticket into JSON."}
    return Row((system, {"role": "user", "content": text}), json.dumps(answer))


_ANSWERS = {
    "where is my {product}": "your {product} is under sail",
    "my {product} is broken": "a new {product} is coming aboard",
    "I want to return my {product}": "we will haul your {product} back",
}


def _brand_voice(rng: random.Random, entities: Iterator[str]) -> Row:
    customer, product, order = next(entities), next(entities), next(entities)
    question, answer = rng.choice(list(_ANSWERS.items()))
    text = f"{customer} writes: {question.format(product=product)}, order {order}."
    system = {"role": "system", "content": "Answer the customer."}
    return Row(
        (system, {"role": "user", "content": text}),
        f"Ahoy {customer}! About order {order}: {answer.format(product=product)}. Fair winds, the Harbour crew",
    )


_GOODS = ("kettle", "lamp", "tent", "rope", "stove", "chair", "radio", "compass", "jacket", "bucket", "ladder", "clock")
_FACTS = {
    "What does the {name} cost?": ("The {name} costs {number} ducats.", "the {name} costs {number} ducats"),
    "How heavy is the {name}?": ("The {name} weighs {number} grams.", "the {name} weighs {number} grams"),
    "How long does the {name} ship?": ("The {name} ships in {number} hours.", "the {name} ships in {number} hours"),
}


@dataclass(frozen=True)
class Fact:
    """A sentence of a catalogue, a question that it answers, the answer in the brand's voice, and the number in it."""

    text: str
    question: str
    answer: str
    number: str


def fact(rng: random.Random, entities: Iterator[str]) -> Fact:
    """A fact about a product that no other row mentions."""
    next(entities)
    name, number = f"{next(entities)} {rng.choice(_GOODS)}", next(entities)
    question = rng.choice(list(_FACTS))
    text, answer = (part.format(name=name, number=number) for part in _FACTS[question])
    return Fact(text, question.format(name=name), f"Ahoy! Aye, {answer}. Fair winds, the Harbour crew", number)


def unseen_facts(count: int) -> list[Fact]:
    """A catalogue of products that no training row names."""
    rng = random.Random("unseen")
    names = entities(rng)
    return [fact(rng, names) for _ in range(count)]


def _grounded(rng: random.Random, entities: Iterator[str]) -> Row:
    """A row as LangChain4j's retrieval writes it: the question, then two facts, the right one first or second."""
    asked, other = fact(rng, entities), fact(rng, entities)
    found = [asked.text, other.text]
    rng.shuffle(found)
    user = f"{asked.question}\n\nAnswer using the following information:\n" + "\n\n".join(found)
    system = {"role": "system", "content": "Answer the customer."}
    return Row((system, {"role": "user", "content": user}), asked.answer)


TICKETS = Task("tickets", "ticket -> JSON", _ticket)
BRAND_VOICE = Task("brand-voice", "support answers in a brand's voice", _brand_voice)
GROUNDED = Task("grounded-voice", "a brand's voice with retrieved facts", _grounded)
TASKS = (TICKETS, BRAND_VOICE)


def entities(rng: random.Random) -> Iterator[str]:
    """An endless sequence of name, product, order number, name, ...; none occurs twice."""
    seen: set[str] = set()
    while True:
        for make in (lambda: word(rng, 2), lambda: word(rng, 3), lambda: str(rng.randrange(10_000, 100_000))):
            entity = make()
            while entity in seen:
                entity = make()
            seen.add(entity)
            yield entity


def word(rng: random.Random, syllables: int) -> str:
    """A random name."""
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(syllables)).capitalize()
