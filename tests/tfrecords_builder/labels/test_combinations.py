"""Label combinations as numbers, vectors and texts."""

import numpy as np
import pytest

from tests import fakes
from tfrecords_builder.labels import LABELS, combinations


def test_codes_are_the_labels_as_bits_the_first_one_the_highest():
    vectors = np.eye(14, dtype=np.float32)
    assert combinations.encode(vectors).tolist() == [2**bit for bit in range(13, -1, -1)]
    np.testing.assert_array_equal(combinations.decode(combinations.encode(vectors), 14), vectors)
    assert combinations.encode(vectors).dtype == np.uint16 and combinations.decode([3], 14).dtype == np.float32


def test_every_code_has_its_own_text():
    texts = [combinations.format_code(code, LABELS) for code in range(combinations.num_codes(14))]
    assert len(set(texts)) == 2**14 and [combinations.parse(text, LABELS) for text in texts] == list(range(2**14))
    (code,) = combinations.encode(fakes.make_vector(("Pleural Effusion", "Edema"))[None])
    assert combinations.format_code(code, LABELS) == "Edema|Pleural Effusion"
    assert combinations.names(code, LABELS) == ["Edema", "Pleural Effusion"]
    assert combinations.parse("Pleural Effusion|Edema|Edema", LABELS) == code
    assert texts[0] == "(none)" and combinations.parse("", LABELS) == 0
    with pytest.raises(ValueError, match="'Oedema' is none of the 14 labels"):
        combinations.parse("Edema|Oedema", LABELS)


def test_ranked_by_number_then_by_label_order():
    counts = np.zeros(combinations.num_codes(14), np.int64)
    counts[[1, 5, 9]] = 3, 7, 3
    assert combinations.rank(counts).tolist() == [5, 9, 1]
    assert combinations.count(np.array([5, 1, 5], np.uint16), 14)[[1, 5]].tolist() == [1, 2]


def test_table_of_a_fold_without_labels_too():
    """The rows of v2_thesis without any label are findings: a GAN trained on them could not be loaded."""
    vectors = np.stack([fakes.make_vector(names) for names in (("Edema",), (), ("Edema",))])
    counts = combinations.count(combinations.encode(vectors), 14)
    table = combinations.to_table(counts, LABELS)
    assert table == [{"labels": "Edema", "count": 2}, {"labels": "(none)", "count": 1}]
    np.testing.assert_array_equal(combinations.from_table(table, LABELS), counts)


def test_findings_outside_the_labels_come_after_them():
    assert combinations.join(["Hernia", "Mass", *LABELS[1::-1]], LABELS) == "|".join([*LABELS[:2], "Hernia", "Mass"])
