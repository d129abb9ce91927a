"""The notation of a study's flags."""

import pytest

from tfcxr.studies import definition
from tfcxr.studies.definition import Cells
from tfrecords_builder.errors import InputError


def test_a_word_that_is_no_flag_is_a_preset():
    found = definition.parse_tokens("gan_flags", "demo/train_gan --total_kimg=2 --augment='a b'")
    assert found == ("--flagfile=demo/train_gan", "--total_kimg=2", "--augment=a b")
    assert definition.parse_tokens("gan_flags", "") == ()
    with pytest.raises(InputError, match=r"--gan_flags=--a='b: No closing quotation"):
        definition.parse_tokens("gan_flags", "--a='b")


def test_cells():
    found = definition.parse_cells("a, synthetic -> b: none/plain, none, dcan")
    assert found == Cells(("a", "synthetic"), ("b",), (("none", "plain"), ("none", None), ("dcan", None)))


def test_the_former_name_of_a_method_still_stands_for_it():
    assert definition.parse_cells("a -> b: ours").methods == (("dcan_noreg", None),)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a -> b", "must look like"),
        ("a: none", "must look like"),
        ("a, -> b: none", "a name is missing"),
        ("a -> b: dacn", "there is no method dacn; choose one of none, "),
        ("a -> b: none/plane", "there is no none/plane; variants of none are: none/plain"),
        ("a -> b: dann/plain", "there is no dann/plain; variants of dann are: dann/estimate"),
        ("a -> b: continued/estimate", "there is no continued/estimate; variants of continued are: none"),
        ("a -> b: dcan/plain", "there is no dcan/plain"),
    ],
)
def test_bad_cells(line, message):
    with pytest.raises(InputError, match=message):
        definition.parse_cells(line)


def test_named_lines():
    assert definition.parse_named("records", ["a: x --y=C:z", "b:"]) == {"a": "x --y=C:z", "b": ""}
    with pytest.raises(InputError, match="--records: a is given twice, as 'x' and 'y'"):
        definition.parse_named("records", ["a: x", "a: y"])
    for line in ("a", "a b: x", ": x"):
        with pytest.raises(InputError, match="must look like NAME"):
            definition.parse_named("records", [line])


def test_folders(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = tmp_path / "one", tmp_path / "two"
    assert definition.parse_folders("data", [str(one)], ["a", "b"]) == {"a": one, "b": one}
    assert definition.parse_folders("data", [f"b:{two}", str(one)], ["a", "b"]) == {"a": one, "b": two}
    assert definition.parse_folders("data", [f"a:{one}", f"a:{one}"], ["a"]) == {"a": one}
    assert definition.parse_folders("generators", [], ["a"], all_needed=False) == {}
    named = {"all_needed": False, "by_name": {"nih_32": two}}
    assert definition.parse_folders("generators", ["a:nih_32"], ["a"], **named) == {"a": two}
    with pytest.raises(InputError, match="--generators=a:nih_64: there is no such folder; known by name: nih_32"):
        definition.parse_folders("generators", ["a:nih_64"], ["a"], **named)
    for entries, message in (
        ([], "--data: has no folder for a; give --data=a:FOLDER"),
        ([f"a:{one}"], "has no folder for b"),
        ([str(tmp_path / "none")], "none: there is no such folder"),
        ([f"c:{one}", str(one)], "c has no use for a folder; known: a, b"),
        ([f"a:{one}", f"b:{one}", f"a:{two}"], f"--data: a has two folders, {one} and {two}; give one of them"),
        ([str(one), str(two)], f"--data: {one} and {two} are both given for all sets; write NAME:FOLDER for each"),
    ):
        with pytest.raises(InputError, match=message):
            definition.parse_folders("data", entries, ["a", "b"])
