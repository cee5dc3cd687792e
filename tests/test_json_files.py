"""JSON that anyone may have written: what does not fit is one sentence with the file and the place in it."""

import json
import os

import numpy as np
import pytest

from utils.json_files import (
    DEEPEST,
    anything,
    array,
    as_stored,
    flag,
    items,
    nonempty,
    nullable,
    number,
    parse_json,
    read_json,
    read_json_lines,
    record,
    table,
    text,
    whole,
)
from utils.reading import inside, read_bytes, reading, require_file

CAMERA = record({"name": nonempty, "w2c": array(None, 2, 2)}, {"n": whole(1, 9), "ok": flag, "f": number(above=0)})


@pytest.mark.parametrize(
    ("schema", "value", "checked"),
    [
        (number(), 3, 3.0),
        (number(from_text=True), "0.5", 0.5),
        (whole(from_text=True), "400", 400),
        (whole(), 4.0, 4),
        (array(None, 2), [[1, 2.5]], [[1.0, 2.5]]),
        (nullable(text()), None, None),
        (as_stored(array(2)), [1, 2], [1, 2]),
        (text("a", "b"), "b", "b"),
        (text(), "m\udcfc", "m\udcfc"),  # a byte of a file's name that is not text
        (CAMERA, {"name": "x", "w2c": [], "n": None, "more": [1]}, None),
    ],
)
def test_values_that_fit(schema, value, checked):
    if schema is CAMERA:
        with pytest.raises(ValueError, match="w2c"):  # no pose is not an array of poses
            schema(value)
        found = schema(value | {"w2c": [[[1, 2], [3, 4]]]})
        assert found.keys() == {"name", "w2c", "more"} and found["w2c"].dtype == np.float64
        return
    assert np.array_equal(schema(value), checked)


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        (number(), True, "is true, expected a number"),
        (number(), "3", 'is "3", expected a number'),
        (number(from_text=True), "wide", 'is "wide", expected a number'),
        (number(from_text=True), "nan", 'is "nan", expected a number'),
        (number(0, 1), 1.5, "is 1.5, expected a number of at least 0 and at most 1"),
        (number(above=0), 0, "is 0, expected a positive number"),
        (number(), float("inf"), "is Infinity, expected a number"),
        (number(), 10**400, "is an integer of hundreds of digits, expected a number"),
        (number(), 1e39, "is 1e+39, expected a number below 1e+12"),
        (whole(), 1.5, "is 1.5, expected a whole number from 0"),
        (whole(), 1e300, "is 1e+300, expected a whole number from 0"),
        (text(), "a\nb", 'is "a\\nb", expected text without control characters'),
        (text(), "\ud800", 'is "\\ud800", expected text without control characters'),
        (text(), "\udc7f", 'is "\\udc7f", expected text without control characters'),
        (text("a", "b"), ["a"], 'is ["a"], expected one of a, b'),
        (flag, 1, "is 1, expected true or false"),
        (array(2), [1, None], "is [1, null], expected an array of finite numbers, 2"),
        (array(2), ["1", "2"], 'is ["1", "2"], expected an array of finite numbers, 2'),
        (array(2), [1, float("nan")], "is [1, NaN], expected an array of finite numbers, 2"),
        (array(2, 2), [[1], [2, 3]], "is [[1], [2, 3]], expected an array of finite numbers, 2 x 2"),
        (array(2), [1, 2, 3], "is an array of 3, expected an array of finite numbers, 2"),
        (array(1), [10**400], "is [" + "1" + "0" * 75 + "..., expected an array of finite numbers, 1"),
        (items(flag), {}, "is {}, expected a list"),
        (items(flag, 1), [], "is [], expected a list of at least 1"),
        (table(flag), {"a": 0}, "a is 0, expected true or false"),
        (items(CAMERA), [{"name": "x"}], "[0] has no w2c"),
        (items(CAMERA), [{"name": "", "w2c": []}], '[0].name is "", expected text of at least one character'),
        (CAMERA, {"name": "x", "w2c": [[[1, 2], [3, 4]]], "n": 10}, "n is 10, expected a whole number from 1 to 9"),
        (record({}, {"a": flag}, closed=True), {"b": 1}, 'has the key "b", expected an object with any of a'),
        (text(), "x" * 500, None),
        (flag, ["x"] * 500, "is a list of 500 entries, expected true or false"),
    ],
)
def test_values_that_do_not(schema, value, message):
    if message is None:
        assert schema(value) == value
        return
    with pytest.raises(ValueError) as caught:
        schema(value)
    assert str(caught.value) == message


def test_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path, items(number())) == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not a readable JSON file (not JSON: Expecting"),
        (b"", "not a readable JSON file (not JSON: Expecting"),
        (b"\xff\xfe", "not a readable JSON file (byte 0 is not utf-8 text)"),
        (b"[" * 100_000, f"not a readable JSON file (nested deeper than {DEEPEST} levels)"),
        (b"[" * 65 + b"]" * 65, f"not a readable JSON file (nested deeper than {DEEPEST} levels)"),
        (b"9" * 5000, "not a readable JSON file (a number of thousands of digits)"),
        (b"3", "is 3, expected a list"),
    ],
)
def test_broken_files_are_named(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_json(path, items(anything))
    assert str(caught.value).startswith(f"{path}: {message}") and "\n" not in str(caught.value)


def test_the_deepest_file_that_is_read():
    content = "[" * DEEPEST + "]" * DEEPEST
    assert parse_json(content, anything) == json.loads(content)


def test_too_large_files_are_not_read(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("[1]")
    monkeypatch.setattr("utils.json_files.LARGEST_FILE", 2)
    with pytest.raises(ValueError, match=r"a\.json: 3 bytes, expected a JSON file of at most 2"):
        read_json(path, anything)


def test_lines_that_are_no_records_are_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": true}\n{"a": 1}\n{"a"\n\xff\n' + b"[" * 5000 + b'\n{"a": false}')
    assert read_json_lines(path, record({"a": flag})) == ([{"a": True}, {"a": False}], 4)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, words in (
        (tmp_path / "pipe", "is a pipe, expected a file"),
        (tmp_path, "is a folder, expected a file"),
        ("/dev/zero", "is a device, expected a file"),
        (tmp_path / "absent", "no such file"),
        (tmp_path / "a\0b", "not a readable file"),
        (tmp_path / ("x" * 300), "not a readable file"),
    ):
        with pytest.raises(ValueError) as caught:
            read_bytes(path)
        assert str(caught.value).startswith(f"{path}: {words}")
    assert require_file(__file__) == os.stat(__file__).st_size


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "its contents do not fit into memory"),
        (RecursionError("maximum"), "nested too deeply"),
        (KeyError("a"), "no 'a'"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (IndexError("first\nsecond\x1b[31m"), "first second [31m"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (ValueError("x" * 999), "x" * 197 + "..."),
    ],
)
def test_every_error_of_a_parser_names_the_file(error, words):
    with pytest.raises(ValueError) as caught, reading("some/file.x", "a readable x"):
        raise error
    assert str(caught.value) == f"some/file.x: not a readable x ({words})"
    with pytest.raises(ValueError, match=r"^some/file\.x: mine$"), reading("some/file.x", "a readable x"):
        raise ValueError("some/file.x: mine")
    with pytest.raises(KeyboardInterrupt), reading("some/file.x", "a readable x"):
        raise KeyboardInterrupt


def test_metadata_name_files_of_their_own_folder(tmp_path):
    for name in ("a.ply", "sub/a.ply", "sub/../a.ply", str(tmp_path / "a.ply"), "./a.ply"):
        assert inside("m.json", tmp_path, name, "key") == tmp_path / name
    for name in ("../a.ply", "/etc/passwd", "sub/../../a.ply", f"../{tmp_path.name}x/a.ply"):
        with pytest.raises(ValueError, match=rf"m\.json: key is '.*', expected a path inside {tmp_path}"):
            inside("m.json", tmp_path, name, "key")
    with pytest.raises(ValueError, match=r"^m\.json: .*the name 'a/bbb.*has a part of 202 bytes, expected at most 200"):
        inside("m.json", tmp_path, f"a/{'b' * 202}/{'c' * 200}", "key")
    assert inside("m.json", tmp_path, "c" * 200, "key")
