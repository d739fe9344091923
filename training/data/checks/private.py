"""Data that a model should not memorise: secrets by detect-secrets' patterns, personal data by valid check digits.

A secret only ends a job if it cannot be anything else: it stands alone and has a digit, as random ones do, unlike
`ASIAPACIFICOPERATIONS` and `ghp_xxxx…`; and a private key must have more than its first line.

A number counts as personal if its check digits are right (python-stdnum), or libphonenumber says that it is valid, so
that order numbers are not reported. Names and addresses are not looked for, since that would need another model.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import phonenumbers
from stdnum import iban, luhn
from stdnum.us import ssn

from training.data.findings import Finding, found
from training.data.rows import Row

# Parts have the limits of RFC 5321 and 1035, so that the search in a row of a megabyte takes linear time.
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}\.[a-z]{2,24}\b", re.IGNORECASE)
_EXAMPLE_MAIL = re.compile(
    r"@(?:[\w-]+\.)*(?:example\.\w+|[\w-]+\.(?:test|example|invalid))$", re.IGNORECASE
)  # RFC 2606
_CARD = re.compile(r"(?<![\d.-])(?:\d[ -]?){12,18}\d(?![\d.-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
_SSN = re.compile(r"\b\d{3}-\d{2}-\d{4}\b")
_PHONE = re.compile(r"\+\d[\d ()./-]{6,18}\d")
# Detectors of secrets with a distinct format; those by entropy or keyword find too much in prose.
_DETECTORS = (
    "aws.AWSKeyDetector",
    "azure_storage_key.AzureStorageKeyDetector",
    "discord.DiscordBotTokenDetector",
    "github_token.GitHubTokenDetector",
    "gitlab_token.GitLabTokenDetector",
    "mailchimp.MailchimpDetector",
    "npm.NpmDetector",
    "openai.OpenAIDetector",
    "private_key.PrivateKeyDetector",
    "pypi_token.PypiTokenDetector",
    "sendgrid.SendGridDetector",
    "slack.SlackDetector",
    "square_oauth.SquareOAuthDetector",
    "stripe.StripeDetector",
    "telegram_token.TelegramBotTokenDetector",
    "twilio.TwilioKeyDetector",
)
_PROVEN_DETECTORS = ("jwt.JwtTokenDetector",)  # these decode what they find
# These also match harmless texts: the invoice AP2024001234, the example postgres://user:password@localhost.
_WEAK_DETECTORS = ("artifactory.ArtifactoryDetector", "basic_auth.BasicAuthDetector")
_LETTER = re.compile(r"\w")
_KEY = re.compile(
    r"(?:-----|: [\w-]+)(?:\s|\\n|[\w-]{1,64}: [^\n]{1,200}\n)*[A-Za-z0-9+/]{24}"
)  # the text after a private key's first line
# Some patterns take quadratic time, so a long row is searched in pieces; the overlap is longer than any token.
_PIECE, _OVERLAP = 4_096, 2_048


class Secrets:
    """Keys and tokens are errors; possible ones, such as a password in a URL, are warnings."""

    def __init__(self) -> None:
        self.drops: dict[int, str] = {}
        self._possible: dict[int, str] = {}

    def add(self, row: Row) -> None:
        """See a row."""
        for kind, sure in _secrets(row.text):
            if sure:
                self.drops[row.line] = f"it holds a secret: {kind}"
                self._possible.pop(row.line, None)
                break
            self._possible[row.line] = kind

    def findings(self, rows: int) -> Iterable[Finding]:
        """What was found."""
        kinds = sorted({why.rpartition(": ")[2] for why in self.drops.values()})
        yield from found(
            "secrets",
            "error",
            list(self.drops),
            f"{len(self.drops)} rows hold secrets ({', '.join(kinds)}), which the model could be made to recite. Take "
            "them out, and revoke them",
        )
        yield from found(
            "possible_secrets",
            "warning",
            list(self._possible),
            f"{len(self._possible)} rows may hold secrets ({', '.join(sorted(set(self._possible.values())))}), or what "
            "only looks so: look at them",
        )


class PersonalData:
    """E-mail addresses, card and account numbers, social security and telephone numbers."""

    def __init__(self) -> None:
        self.drops: dict[int, str] = {}
        self._lines: dict[str, list[int]] = {}

    def add(self, row: Row) -> None:
        """See a row."""
        text = row.text
        for kind, test in _PERSONAL.items():
            if test(text):
                self._lines.setdefault(kind, []).append(row.line)

    def findings(self, rows: int) -> Iterable[Finding]:
        """What was found."""
        for kind, lines in self._lines.items():
            yield from found(
                "personal_data",
                "warning",
                lines,
                f"{len(lines)} rows hold {kind}; replace those of real people, the model could be made to recite them",
            )


def _secrets(text: str) -> Iterator[tuple[str, bool]]:
    """The kinds of possible secrets in the text, each with whether it is certain."""
    pieces = [text[start : start + _PIECE + _OVERLAP] for start in range(0, max(1, len(text) - _OVERLAP), _PIECE)]
    for plugin in _plugins(_DETECTORS):
        for piece in pieces:
            for pattern in plugin.denylist:
                for match in pattern.finditer(piece):
                    yield plugin.secret_type, _sure(plugin.secret_type, match)
    for detectors, sure in ((_PROVEN_DETECTORS, True), (_WEAK_DETECTORS, False)):
        for plugin in _plugins(detectors):
            if any(True for piece in pieces for _ in plugin.analyze_string(piece)):
                yield plugin.secret_type, sure


def _sure(kind: str, match: re.Match[str]) -> bool:
    text, start, end = match.string, match.start(), match.end()
    if kind == "Private Key":
        return _KEY.match(text, end) is not None
    alone = not _LETTER.match(text[max(0, start - 1) : start]) and not _LETTER.match(text, end)
    return alone and any(map(str.isdigit, match[0]))


@cache
def _plugins(detectors: tuple[str, ...]) -> list[Any]:
    from importlib import import_module

    names = (name.rpartition(".") for name in detectors)
    return [getattr(import_module(f"detect_secrets.plugins.{module}"), kind)() for module, _, kind in names]


def _mail(text: str) -> bool:
    return "@" in text and any(not _EXAMPLE_MAIL.search(address) for address in _EMAIL.findall(text))


def _card(text: str) -> bool:
    numbers = (re.sub(r"\D", "", number) for number in _CARD.findall(text))
    return any(number[0] in "3456" and luhn.is_valid(number) for number in numbers)


def _phone(text: str) -> bool:
    for number in _PHONE.findall(text):
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(number)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False


_PERSONAL: dict[str, Callable[[str], bool]] = {
    "e-mail addresses": _mail,
    "card numbers": _card,
    "account numbers (IBAN)": lambda text: any(iban.is_valid(number) for number in _IBAN.findall(text)),
    "social security numbers": lambda text: any(ssn.is_valid(number) for number in _SSN.findall(text)),
    "telephone numbers": _phone,
}
