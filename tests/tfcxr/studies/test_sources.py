"""The notation of sources."""

import pytest

from tfcxr.studies import sources
from tfcxr.studies.sources import Source, Stage
from tfrecords_builder.errors import InputError


@pytest.mark.parametrize(
    ("text", "found", "alone"),
    [
        ("nih", Source(None, (Stage("nih"),)), None),
        ("nih@10%", Source(None, (Stage("nih", 10.0),)), None),
        ("nih@0.5% + fake", Source(None, (Stage("nih", 0.5, "fake"),)), "nih@0.5%"),
        ("fake > nih@10%", Source(None, (Stage("fake"), Stage("nih", 10.0))), "nih@10%"),
        ("imagenet>nih", Source("imagenet", (Stage("nih"),)), "nih"),
        ("simclr>fake>nih+fake", Source("simclr", (Stage("fake"), Stage("nih", None, "fake"))), "nih"),
    ],
)
def test_sources(text, found, alone):
    parsed = sources.parse(text, ("imagenet", "none", "simclr"))
    assert parsed == found
    assert str(parsed) == text.replace(" ", "")
    assert parsed.alone == alone


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagenet", "imagenet: names first weights only; write imagenet>SET"),
        ("nih@0%", r"nih@0%: 0% must be above 0 and at most 100"),
        ("nih@101%", "101% must be above 0"),
        ("nih@ten%", "ten% must be above 0"),
        ("nih@10", "nih@10 is no set"),
        ("nih>", "nothing is no set"),
        ("+fake", r"\+fake is no set"),
        ("a+b+c", "is no set"),
    ],
)
def test_bad_sources(text, message):
    with pytest.raises(InputError, match=message):
        sources.parse(text)
