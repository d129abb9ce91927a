"""The growing schedule against tables worked out by hand."""

import pytest

from tfcxr.gan.training import schedule
from tfcxr.gan.training.schedule import Phase

KIMG = 1000


def test_the_table_of_32_px():
    phases = schedule.growing(32, 12_000 * KIMG)
    # 1 400 000 images are 5468.75 steps of 256, 10937.5 of 128 (the even neighbour: 10938), and 21875 of 64.
    at_8, at_16, at_32 = 5469 * 256, 10938 * 128, 21875 * 64
    starts = [0, at_8, at_8 + at_16, at_8 + 2 * at_16, at_8 + 2 * at_16 + at_32]
    rest = round((12_000 * KIMG - starts[-1]) / 64) * 64
    assert phases == [
        Phase(3, 0.0, 0.0, starts[0], at_8, 256, 0.001, False),
        Phase(4, 1.0, 0.0, starts[1], at_16, 128, 0.001, True),
        Phase(4, 0.0, 0.0, starts[2], at_16, 128, 0.001, True),
        Phase(5, 1.0, 0.0, starts[3], at_32, 64, 0.001, True),
        Phase(5, 0.0, 0.0, starts[4], rest, 64, 0.001, True),
    ]
    assert sum(phase.num_images for phase in phases) == 12_000 * KIMG


@pytest.mark.parametrize(
    ("resolution", "kimg", "sizes"),
    [
        (64, 1000, [256, 128, 64, 32]),
        (128, 1000, [256, 128, 64, 32, 16]),
        (512, 600, [256, 128, 64, 32, 16, 8, 4]),
    ],
)
def test_defaults_by_final_resolution(resolution, kimg, sizes):
    phases = schedule.growing(resolution, 20_000 * KIMG)
    assert [phase.batch_size for phase in phases] == [sizes[0], *(size for size in sizes[1:] for _ in range(2))]
    for phase in phases[:-1]:
        assert phase.num_images == pytest.approx(kimg * KIMG, abs=phase.batch_size / 2)
    assert phases[-1].first_image + phases[-1].num_images == pytest.approx(20_000 * KIMG, abs=phases[-1].batch_size / 2)


def test_phases_are_contiguous_and_of_whole_steps():
    phases = schedule.growing(128, 1001, 0.1, 0.05, {8: 12, 16: 3}, {8: 0.5, 128: 0.25})
    end = 0
    for phase in phases:
        assert phase.first_image == end
        assert phase.num_images % phase.batch_size == 0
        assert phase.num_images > 0
        end += phase.num_images
    assert [phase.batch_size for phase in phases[:4]] == [12, 3, 3, 64]
    assert phases[0].learning_rate == 0.5
    assert phases[1].learning_rate == 0.001
    assert abs(end - 1001) <= 8


def test_a_short_total_ends_amid_a_fade():
    phases = schedule.growing(16, 100, 0.06, 0.08, {8: 4, 16: 4})
    assert phases == [
        Phase(3, 0.0, 0.0, 0, 60, 4, 0.001, False),
        Phase(4, 1.0, 0.5, 60, 40, 4, 0.001, True),
    ]
    assert schedule.lod(phases[1], 4, 100) == 0.5
    assert len(schedule.growing(16, 60, 0.06, 0.08, {8: 4, 16: 4})) == 1
    assert schedule.growing(16, 1)[0].num_images == 256


def test_without_a_fade_a_block_is_added_at_once():
    phases = schedule.growing(16, 100, 0.06, 0, {8: 4, 16: 4})
    assert [(phase.stage, phase.fade_from, phase.new_optimizer) for phase in phases] == [(3, 0, False), (4, 0, True)]


def test_8_px_never_grows():
    assert schedule.growing(8, 512) == [Phase(3, 0.0, 0.0, 0, 512, 256, 0.001, False)]


def test_a_network_that_does_not_grow_is_one_phase():
    assert schedule.constant(5, 1000, 64, 0.005) == [Phase(5, 0.0, 0.0, 0, 1024, 64, 0.005, False)]
    assert schedule.constant(5, 1, 64, 0.005)[0].num_images == 64


def test_lod_falls_from_n_minus_3_to_0():
    phases = schedule.growing(32, 400, 0.08, 0.08, {8: 8, 16: 8, 32: 8})
    lods = {}
    for shown in (0, 72, 80, 120, 152, 160, 200, 240, 280, 312, 320, 392, 400, 999):
        index, phase = schedule.at(phases, shown)
        lods[shown] = (index, round(schedule.lod(phase, 5, shown), 6))
    assert lods == {
        0: (0, 2.0),
        72: (0, 2.0),
        80: (1, 2.0),
        120: (1, 1.5),
        152: (1, 1.1),
        160: (2, 1.0),
        200: (2, 1.0),
        240: (3, 1.0),
        280: (3, 0.5),
        312: (3, 0.1),
        320: (4, 0.0),
        392: (4, 0.0),
        400: (4, 0.0),
        999: (4, 0.0),
    }


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"resolution": 24}, "resolution"),
        ({"resolution": 1024}, "resolution"),
        ({"train_kimg": 0}, "train_kimg"),
        ({"fade_kimg": -1}, "fade_kimg"),
        ({"fade_kimg": float("nan")}, "fade_kimg"),
    ],
)
def test_bad_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        schedule.growing(**{"resolution": 32, "total_images": 1000, **arguments})


def test_tables_parse():
    assert schedule.parse_table("8:256,16:128") == {8: 256, 16: 128}
    assert schedule.parse_table(" 8:0.001 , 512:1e-4 ", float) == {8: 0.001, 512: 1e-4}
    assert schedule.parse_table("8:3,16:4,32:8") == {8: 3, 16: 4, 32: 8}
    assert schedule.parse_table("") == {}


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ("8", int),
        ("8:", int),
        ("8:1:2", int),
        ("eight:4", int),
        ("4:16", int),
        ("24:16", int),
        ("1024:16", int),
        ("8:0", int),
        ("8:-4", int),
        ("8:6", int),
        ("8:0.5", int),
        ("8:nan", float),
        ("8:inf", float),
        ("16:64", int),
    ],
)
def test_the_bad_entry_is_named(entry, kind):
    with pytest.raises(ValueError, match=f"'{entry}'"):
        schedule.parse_table(f"16:4,{entry}", kind)
