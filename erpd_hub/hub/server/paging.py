"""Pages of listings: of so many rows, and of so many bytes, as a row may be a large one."""

import json

from starlette.responses import Response

from erpd_hub.hub.server.call import Call, Json, page_link

MAX_PAGE_BYTES = 8 << 20
"""A page ends with the row that passes it: some 100,000 names of files."""


class Page:
    """Rows as they are found, already as text: the rows of a whole listing could take all memory there is."""

    def __init__(self, most_rows: int) -> None:
        self._left = most_rows
        self._size = 0
        self._rows: list[bytes] = []

    @property
    def is_full(self) -> bool:
        return self._left <= 0 or self._size >= MAX_PAGE_BYTES

    def add(self, row: Json) -> None:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        self._rows.append(text)
        self._size += len(text)
        self._left -= 1

    def reply(self, call: Call, path: str, *, more: int | None) -> Response:
        """The page, with a link to the next one where `more` is the position of a row that is left."""
        headers = None if more is None else page_link(call, path, cursor=str(more))
        return Response(b"[" + b",".join(self._rows) + b"]", media_type="application/json", headers=headers)
