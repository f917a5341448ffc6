"""Text from the Hub, from models and from datasets on its way to a terminal, which obeys more than it shows."""

import logging


def plain(text: object) -> str:
    """On one line and without control or invisible characters: an escape sequence retitles a window or wipes a screen,
    and a mark that turns the direction of writing makes one name look like another."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(text))


def plain_lines(text: object) -> str:
    """The same for text of several lines, which stay."""
    return "\n".join(map(plain, str(text).split("\n")))


def escape(text: object) -> str:
    """Plain, and without the markup of rich."""
    from rich.markup import escape as without_markup

    return without_markup(plain(text))


class PlainFormatter(logging.Formatter):
    """Of messages that name what others have named."""

    def format(self, record: logging.LogRecord) -> str:
        return plain_lines(super().format(record))
