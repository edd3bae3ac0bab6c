"""A growing JSON array is cut into its elements, wherever the network cut it."""

from __future__ import annotations

import json

import pytest

from counterfoil.wire.json_array import ArrayCutter

ELEMENTS = [{"a": 1}, {"text": 'braces } ] in "text" \\'}, {"deep": [{"b": []}, [[]]]}, {"last": 'ü\\"'}]
ARRAYS = {
    "google": ("[" + ",\r\n".join(json.dumps(element, indent=2) for element in ELEMENTS) + "\n]\n").encode(),
    "compact": json.dumps(ELEMENTS, separators=(",", ":")).encode(),
    "raw-utf-8": json.dumps(ELEMENTS, ensure_ascii=False).encode(),
}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
def test_elements_are_the_same_at_every_cut(array: bytes, size: int):
    """Each element is found once and whole, and no byte around it is lost."""
    cutter = ArrayCutter()
    frames = [frame.raw for at in range(0, len(array), size) for frame in cutter.push(array[at : at + size])]
    rest = cutter.rest()
    assert b"".join(frames) + (rest.raw if rest else b"") == array
    assert [json.loads(element) for frame in frames if (element := cutter.element(frame))] == ELEMENTS
