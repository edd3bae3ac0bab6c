"""``/v1/images/generations`` and ``/v1/images/edits``.

Models that count tokens report usage; for the others the images themselves are the meter, named by quality and size as
far as the answer, or else the request, tells them: ``images``, ``images.hd.1024x1024``. A stream sends partial images
and one ``…completed`` event for each image asked for; the last of them ends it. Such frames are megabytes long.

Source: OpenAI API reference, image streaming events, read 2026-11.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import Raw, Struct

from counterfoil.surfaces import metering
from counterfoil.surfaces.base import Call, Meter, Request
from counterfoil.surfaces.calls import flag, json_body, model_of, tags_of, word
from counterfoil.surfaces.families import JsonSurface
from counterfoil.surfaces.foreign import UNREADABLE, mapping, parse
from counterfoil.surfaces.forms import FormSurface
from counterfoil.surfaces.stream import END, LAST, PASS, StreamMeter, Verdict, telling
from counterfoil.wire.json_object import tail_object

IMAGES_MAX = 100
"""No provider makes more images in one call; a larger ``n`` is the provider's to refuse."""

_QUALIFIER = re.compile(r"[a-z0-9]{1,16}\Z")
_COMPLETED = re.compile(rb"image_(?:generation|edit)\.completed")


class _Answer(Struct):
    """What is read of an answer. ``data`` stays unparsed: it is megabytes of base64."""

    data: Raw = Raw(b"[]")
    usage: Any = None
    quality: Any = None
    size: Any = None
    model: Any = None
    id: Any = None


_answer = msgspec.json.Decoder(_Answer, float_hook=Decimal)
_list = msgspec.json.Decoder(list[Raw])


def image_meter(quality: object, size: object) -> str:
    """The meter of an image of this quality and size, each left out when it is not told (or left to the model)."""
    known = [part for part in (quality, size) if isinstance(part, str) and part != "auto" and _QUALIFIER.match(part)]
    return ".".join(("images", *known))


def asked(values: dict[str, bytes]) -> dict[str, int]:
    """The images a request asks for, by the meter they would have."""
    number = values.get("n", b"1").strip()
    wanted = int(number) if number.isdigit() and len(number) <= 3 else 1
    quality, size = (values.get(name, b"").decode("utf-8", "replace") for name in ("quality", "size"))
    return {image_meter(quality, size): min(max(wanted, 1), IMAGES_MAX)}


class ImagesSurface(JsonSurface):
    """``/v1/images/generations``."""

    unary_output = False

    def peek(self, request: Request) -> Call:
        """Raises :class:`CallerFault`."""
        body, content_type = json_body(request)
        names = ("n", "quality", "size")
        return Call(
            endpoint=self.path,
            model=model_of(body),
            stream=flag(body, "stream"),
            body=body.body,
            content_type=content_type,
            model_span=body.span("model"),
            end_user=word(body, "user"),
            session_id=word(body, "session_id"),
            tags=tags_of(body) if "metadata" in body.values else None,
            meters=asked({name: bytes(body.values[name]).strip(b'"') for name in names if name in body.values}),
        )

    def meter(self, call: Call) -> Meter:
        """A meter for one answer."""
        return ImagesMeter(call)


class ImageEditsSurface(FormSurface):
    """``/v1/images/edits``."""

    unary_output = False

    def meters(self, values: dict[str, bytes]) -> dict[str, int]:
        """The images asked for."""
        return asked(values)

    def meter(self, call: Call) -> Meter:
        """A meter for one answer."""
        return ImagesMeter(call)


class ImagesMeter(StreamMeter):
    """Reads images."""

    words = telling(b".completed", b"error")

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._asked = call.meters or {"images": 1}
        self._images: dict[str, int] = {}

    def event(self, name: bytes, data: bytes) -> Verdict:
        """One event."""
        body = mapping(parse(data))
        if body.get("error") or name == b"error" or body.get("type") == "error":
            return self.complain({"type": "error", **body})
        self.output_seen = self.output_seen or "b64_json" in body
        kind = str(body.get("type") or name.decode("latin-1"))
        if not body or not kind.endswith(".completed"):
            return PASS
        self.note(body)
        self._count(body.get("quality"), body.get("size"), 1)
        return self._completed(body.get("usage"))

    def long(self, head: bytes, tail: bytes) -> Verdict:
        """An image too large to hold: its kind stands at the frame's beginning, its usage at the end."""
        self.output_seen = True
        if _COMPLETED.search(head) is None and _COMPLETED.search(tail) is None:
            return PASS
        self._count(None, None, 1)
        return self._completed(parse(tail_object(tail, b"usage")))

    def _completed(self, usage: object) -> Verdict:
        self.merge_usage(usage)
        self._reading.complete = True
        return END if sum(self._images.values()) >= sum(self._asked.values()) else LAST

    def _count(self, quality: object, size: object, number: int) -> None:
        """Count images as the answer describes them, or else as the request did."""
        named = image_meter(quality, size)
        meter = named if named != "images" else next(iter(self._asked))
        self._images[meter] = self._images.get(meter, 0) + number

    def whole(self, status: int, body: bytes) -> None:
        """Read a unary answer without its images."""
        if status >= 400:
            super().whole(status, body)
            return
        self._reading.complete = True
        try:
            answer = _answer.decode(body)
            images = len(_list.decode(answer.data))
        except UNREADABLE:
            return
        self.note({"id": answer.id, "model": answer.model})
        self.merge_usage(answer.usage)
        self._reading.has_output = images > 0
        if images:
            self._count(answer.quality, answer.size, images)

    def settle(self) -> None:
        """Fill the reading: tokens where the provider counts them, else the images."""
        super().settle()
        if not self._reading.usage.total_tokens:
            self._reading.usage = metering.usage_of(self._usage, self._images)
