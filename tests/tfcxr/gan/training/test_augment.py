"""Augmentation against numbers worked out by hand, SciPy and numerical gradients."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from tfcxr.gan.training import augment

SEED = tf.constant([3, 14], tf.int64)
ALL = tuple(augment.POLICIES)


def random_images(count, side=8, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, [count, side, side, 1]).astype(np.float32)


def blob(side=33):
    """A smooth image without symmetry."""
    y, x = np.mgrid[:side, :side] / (side - 1) * 2 - 1
    image = 1.5 * np.exp(-8 * ((y + 0.3) ** 2 + (x - 0.1) ** 2)) + np.exp(-12 * ((y - 0.2) ** 2 + (x + 0.35) ** 2)) - 1
    return image.astype(np.float32)


def changed(before, after):
    return np.any(np.asarray(before) != np.asarray(after), axis=(1, 2, 3))


# Names


def test_parse():
    assert augment.parse("") == augment.parse("  ") == ()
    assert augment.parse("cutout, translation") == ("translation", "cutout")
    assert augment.parse("color") == ("brightness", "contrast")
    assert augment.parse("diffaugment") == ("translation", "brightness", "contrast", "cutout")
    assert augment.parse("ada") == ("translation", "zoom", "rotation", "brightness", "contrast")
    assert augment.parse("noise,ada,mirror,zoom") == ("mirror", *augment.parse("ada"), "noise")


@pytest.mark.parametrize("text", ["cutout,hue", "Cutout", "cutout,"])
def test_parse_names_what_is_unknown_and_what_is_known(text):
    with pytest.raises(ValueError, match="unknown policy") as caught:
        augment.parse(text)
    assert repr(text.split(",")[-1]) in str(caught.value)
    for name in (*ALL, "color", "diffaugment", "ada"):
        assert name in str(caught.value)


# Transformations of given amounts


def test_a_shifted_pixel_lands_where_it_must():
    images = np.full([3, 8, 8, 1], -1, np.float32)
    images[:, 2, 3] = 0.5
    moved = augment.move(images, shifts=tf.constant([[1, -2], [0, 0], [-3, 0]])).numpy()
    expected = np.full([3, 8, 8, 1], -1, np.float32)
    expected[0, 3, 1] = expected[1, 2, 3] = 0.5  # the third has left the image
    np.testing.assert_array_equal(moved, expected)


def test_what_is_shifted_in_is_black():
    moved = augment.move(np.ones([1, 4, 4, 1], np.float32), shifts=tf.constant([[1, 0]])).numpy()
    np.testing.assert_array_equal(moved[0, :, :, 0], [[-1] * 4, [1] * 4, [1] * 4, [1] * 4])


def test_bilinear_shift_is_the_shift_by_index():
    images, shifts = random_images(4), tf.constant([[1, -2], [0, 3], [-8, 0], [20, 1]])
    by_index = augment.move(images, shifts=shifts)
    np.testing.assert_array_equal(augment.move(images, shifts=shifts, angles=tf.zeros([4])), by_index)
    np.testing.assert_array_equal(augment.move(images, shifts=shifts, exponents=tf.zeros([4])), by_index)


@pytest.mark.parametrize("degrees", [10.0, -7.5, 90.0])
def test_rotation_is_that_of_scipy(degrees):
    image = blob()
    turned = augment.move(image[None, :, :, None], angles=tf.constant([degrees]))[0, :, :, 0]
    # SciPy's turns counter-clockwise too; 'grid-constant' interpolates with what is outside, as here.
    expected = ndimage.rotate(image, degrees, reshape=False, order=1, mode="grid-constant", cval=-1)
    np.testing.assert_allclose(turned, expected, atol=1e-4)


@pytest.mark.parametrize("exponent", [0.3, -0.4])
def test_zoom_is_that_of_scipy(exponent):
    image = blob()
    zoomed = augment.move(image[None, :, :, None], exponents=tf.constant([exponent]))[0, :, :, 0]
    shrink, centre = 2**-exponent, 16
    expected = ndimage.affine_transform(
        image, [shrink, shrink], offset=centre * (1 - shrink), order=1, mode="grid-constant", cval=-1
    )
    np.testing.assert_allclose(zoomed, expected, atol=1e-4)


def test_zoom_by_two_of_a_square():
    image = np.full([1, 8, 8, 1], -1, np.float32)
    image[0, 3:5, 3:5] = 1
    # Places of the result ±0.25, ±0.75, ±1.25, ... from the centre in pixels of the image, whose square has ±0.5
    profile = np.array([0, 0, 0.25, 0.75, 1, 1, 0.75, 0.25, 0, 0])[1:-1]
    zoomed = augment.move(image, exponents=tf.constant([1.0]))[0, :, :, 0]
    np.testing.assert_allclose(zoomed, 2 * np.outer(profile, profile) - 1, atol=1e-6)


def test_movements_together_are_zoom_then_rotation_then_shift():
    images = blob()[None, :, :, None]
    exponents, angles, shifts = tf.constant([0.2]), tf.constant([8.0]), tf.constant([[3, -2]])
    together = augment.move(images, shifts=shifts, exponents=exponents, angles=angles)
    apart = augment.move(augment.move(images, exponents=exponents), angles=angles)
    apart = augment.move(apart, shifts=shifts)
    # Two resamplings blur more than one, by 0.024 here; another order would differ by 0.1 and more.
    np.testing.assert_allclose(together[:, 5:-5, 5:-5], apart[:, 5:-5, 5:-5], atol=0.03)
    other = augment.move(augment.move(images, shifts=shifts), exponents=exponents, angles=angles)
    assert np.abs(other - together)[:, 5:-5, 5:-5].max() > 0.1


def test_contrast_keeps_the_mean():
    images = np.float32([0.0, 0.2, 0.4, -0.2]).reshape([1, 2, 2, 1])  # mean 0.1
    stretched = augment.stretch(images, tf.reshape(1.5, [1, 1, 1, 1]))
    np.testing.assert_allclose(tf.reshape(stretched, [-1]), [-0.05, 0.25, 0.55, -0.35], atol=1e-6)


def test_cutout_is_half_the_side_and_cut_at_the_border():
    erased = augment.erase(np.ones([2, 8, 8, 1], np.float32), tf.constant([[4, 3], [0, 7]])).numpy()[..., 0]
    expected = np.ones([2, 8, 8])
    expected[0, 2:6, 1:5] = 0
    expected[1, :2, 5:] = 0
    np.testing.assert_array_equal(erased, expected)


# Policies: what is drawn


def test_brightness_adds_one_number_to_an_image():
    images = random_images(200)
    shift = np.asarray(augment.augment(images, ["brightness"], 1.0, SEED) - images)
    np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1, :1], shift.shape), atol=1e-6)
    assert -0.5 <= shift.min() < -0.45
    assert 0.45 < shift.max() <= 0.5


def test_contrast_factors():
    images = random_images(200)
    after = augment.augment(images, ["contrast"], 1.0, SEED).numpy()
    np.testing.assert_allclose(after.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-6)
    factors = after.std((1, 2, 3)) / images.std((1, 2, 3))
    assert 0.4999 < factors.min() < 0.55
    assert 1.45 < factors.max() < 1.5001


def test_translation_reaches_an_eighth_of_the_side():
    images = np.full([300, 16, 16, 1], -1, np.float32)
    images[:, 8, 8] = 1
    places = np.argwhere(augment.augment(images, ["translation"], 1.0, SEED).numpy()[..., 0] == 1)
    assert len(places) == 300
    assert {tuple(place) for place in places[:, 1:]} == {(y, x) for y in range(6, 11) for x in range(6, 11)}


def test_mirror_reverses_half_of_the_images():
    images = random_images(400)
    after = augment.augment(images, ["mirror"], 1.0, SEED).numpy()
    mirrored = changed(images, after)
    assert 160 < mirrored.sum() < 240
    np.testing.assert_array_equal(after[mirrored], images[mirrored, :, ::-1])


def test_noise_has_the_level_of_its_image():
    images = random_images(300, side=16)
    noise = np.asarray(augment.augment(images, ["noise"], 1.0, SEED) - images)
    levels = noise.std((1, 2, 3))
    # The mean of |N(0, 0.1²)| is 0.0798.
    assert 0.07 < levels.mean() < 0.09
    assert levels.min() < 0.01
    normal = noise / levels[:, None, None, None]
    assert abs(normal.mean()) < 0.02
    assert abs((normal**4).mean() - 3) < 0.2
    assert abs(np.corrcoef(normal[0].ravel(), normal[1].ravel())[0, 1]) < 0.3


def test_cutout_centres_are_all_over_the_image():
    after = augment.augment(np.ones([500, 8, 8, 1], np.float32), ["cutout"], 1.0, SEED).numpy()[..., 0]
    erased = (after == 0).sum((1, 2))
    assert set(np.unique(after)) == {0, 1}
    # Of the 4·4 pixels, 2·2 are left of a square around the first corner.
    assert erased.max() == 16
    assert erased.min() == 4
    assert (after == 0).any(0).all()


@pytest.mark.parametrize(("name", "argument"), [("zoom", "exponents"), ("rotation", "angles")])
def test_zoom_and_rotation_draw_around_nothing(name, argument, monkeypatch):
    drawn = {}
    monkeypatch.setattr(augment, "move", lambda images, **arguments: drawn.update(arguments) or images)
    augment.augment(np.zeros([2000, 4, 4, 1], np.float32), [name], 1.0, SEED)
    values = drawn.pop(argument).numpy()
    assert not drawn
    assert abs(values.mean()) < 0.05 * np.abs(values).max()
    if name == "zoom":
        assert abs(values.std() - 0.2) < 0.02
    else:
        assert -10 <= values.min() < -9.9
        assert 9.9 < values.max() < 10


# Probability, seed, rows


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16])
def test_probability_zero_changes_no_bit(dtype):
    images = tf.cast(random_images(8), dtype)
    after = augment.augment(images, ALL, 0.0, SEED)
    assert after.dtype == dtype
    assert after.shape == images.shape
    assert bool(tf.reduce_all(after == images))


@pytest.mark.parametrize("name", ALL)
def test_probability_is_the_share_of_the_images(name):
    images = random_images(600, side=8)
    half = changed(images, augment.augment(images, [name], 0.5, SEED)).mean()
    # Half of those chosen are not mirrored, and one of 9 translations is none.
    expected = {"mirror": 0.5, "translation": 8 / 9}.get(name, 1.0)
    assert abs(half - 0.5 * expected) < 0.07
    assert abs(changed(images, augment.augment(images, [name], 1.0, SEED)).mean() - expected) < 0.06


def test_policies_are_chosen_independently():
    images = random_images(600)
    one = changed(images, augment.augment(images, ["brightness"], 0.5, SEED))
    other = changed(images, augment.augment(images, ["contrast"], 0.5, SEED))
    assert abs((one & other).mean() - 0.25) < 0.06


def test_a_policy_draws_the_same_beside_others():
    images = random_images(6)
    together = augment.augment(images, ["brightness", "cutout"], 0.7, SEED)
    one_by_one = augment.augment(augment.augment(images, ["brightness"], 0.7, SEED), ["cutout"], 0.7, SEED)
    np.testing.assert_array_equal(together, one_by_one)


def test_no_policy_is_the_identity():
    images = random_images(3)
    np.testing.assert_array_equal(augment.augment(images, (), 1.0, SEED), images)


def test_an_unknown_policy_is_refused():
    with pytest.raises(ValueError, match="unknown policy 'hue'"):
        augment.augment(random_images(2), ["hue"], 1.0, SEED)


def test_the_seed_decides():
    images = random_images(6)
    first = augment.augment(images, ALL, 0.8, SEED)
    np.testing.assert_array_equal(augment.augment(images, ALL, 0.8, SEED), first)
    for other in ([3, 15], [4, 14]):
        assert changed(first, augment.augment(images, ALL, 0.8, tf.constant(other, tf.int64))).any()


def test_rows_are_augmented_as_in_the_whole_batch():
    images = random_images(12)
    whole = augment.augment(images, ALL, 0.8, SEED).numpy()
    for rows in ([0, 1, 2], [7, 3], [11]):
        part = augment.augment(images[rows], ALL, 0.8, SEED, rows=(tf.constant(rows), 12))
        np.testing.assert_allclose(part, whole[rows], atol=1e-6)


def test_in_a_graph_of_unknown_batch_size_and_traced_probability():
    traces = []

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 8, 8, 1]),
            tf.TensorSpec([]),
            tf.TensorSpec([2], tf.int64),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([], tf.int32),
        ]
    )
    def graph(images, probability, seed, rows, total):
        result = augment.augment(images, ALL, probability, seed, (rows, total))
        traces.append(result.shape)
        return result

    images = random_images(6)
    rows = tf.constant([4, 1])
    for probability in (0.0, 0.5, 1.0):
        expected = augment.augment(images, ALL, probability, SEED).numpy()[[4, 1]]
        part = graph(images[[4, 1]], tf.constant(probability), SEED, rows, 6)
        np.testing.assert_allclose(part, expected, atol=1e-5)
    assert [shape.as_list() for shape in traces] == [[None, 8, 8, 1]]


def test_a_static_shape_is_kept():
    @tf.function
    def graph(images):
        result = augment.augment(images, ALL, 0.5, SEED)
        assert result.shape == [3, 8, 8, 1]
        return result

    graph(random_images(3))


@pytest.mark.parametrize(("dtype", "tolerance"), [(tf.float16, 2e-3), (tf.bfloat16, 2e-2)])
def test_lower_precision_in_and_out(dtype, tolerance):
    images = tf.cast(random_images(6), dtype)
    after = augment.augment(images, ALL, 1.0, SEED)
    assert after.dtype == dtype
    expected = augment.augment(tf.cast(images, tf.float32), ALL, 1.0, SEED)
    np.testing.assert_allclose(tf.cast(after, tf.float32), expected, atol=tolerance)


# Derivatives


@pytest.mark.parametrize("policies", [[name] for name in ALL] + [list(ALL)], ids=[*ALL, "all"])
def test_gradient_is_the_numerical_one(policies):
    images = tf.constant(random_images(2, side=6))
    weights = random_images(2, side=6, seed=1)

    def weighted(images):
        return tf.reduce_sum(weights * augment.augment(images, policies, 1.0, SEED))

    with tf.GradientTape() as tape:
        tape.watch(images)
        value = weighted(images)
    gradient = tape.gradient(value, images).numpy()
    # The augmentation is affine in the pixels: a step of 1 is exact but for rounding.
    numerical = np.zeros_like(gradient)
    for place in np.ndindex(*gradient.shape):
        step = np.zeros_like(gradient)
        step[place] = 0.5
        numerical[place] = weighted(images + step) - weighted(images - step)
    np.testing.assert_allclose(gradient, numerical, atol=2e-5)


def test_gradient_penalty_through_the_augmentation():
    """For D(x) = a/2·Σ(T x)², T affine, the derivative of ‖∇D‖² by a is 2a·‖∇D / a‖²."""
    images, a = tf.constant(random_images(3)), tf.Variable(1.5)

    @tf.function
    def derivatives():
        with tf.GradientTape() as outer:
            outer.watch(images)
            with tf.GradientTape() as inner:
                inner.watch(images)
                score = 0.5 * a * tf.reduce_sum(tf.square(augment.augment(images, ALL, 1.0, SEED)))
            gradient = inner.gradient(score, images)
            penalty = tf.reduce_sum(tf.square(gradient))
        return penalty, outer.gradient(penalty, [a, images])

    penalty, (by_a, by_images) = derivatives()
    assert penalty > 0
    np.testing.assert_allclose(by_a, 2 * penalty / a, rtol=1e-5)
    assert by_images is not None
    assert np.isfinite(by_images).all()
    assert np.abs(by_images).max() > 0


def test_second_order_gradient_is_the_numerical_one():
    images = tf.constant(random_images(1, side=5))

    def penalty(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            score = tf.reduce_sum(tf.sin(augment.augment(images, augment.parse("ada"), 1.0, SEED)))
        return tf.reduce_sum(tf.square(tape.gradient(score, images)))

    with tf.GradientTape() as tape:
        tape.watch(images)
        value = penalty(images)
    gradient = tape.gradient(value, images).numpy()
    for place in ((0, 1, 2, 0), (0, 3, 3, 0), (0, 2, 0, 0)):
        step = np.zeros_like(gradient)
        step[place] = 0.01
        numerical = (penalty(images + step) - penalty(images - step)) / 0.02
        np.testing.assert_allclose(gradient[place], numerical, rtol=0.01, atol=2e-3)


# The controller


def test_adapt_moves_towards_the_target():
    assert augment.adapt(0.2, 0.7, images=5000).numpy() == pytest.approx(0.21)
    assert augment.adapt(0.2, 0.5, images=5000).numpy() == pytest.approx(0.19)
    assert augment.adapt(0.2, 0.5, images=256, target=0.4, images_to_full=1024).numpy() == pytest.approx(0.45)
    assert augment.adapt(0.2, 0.6, images=5000).numpy() == pytest.approx(0.2)


def test_adapt_stays_in_the_unit_interval():
    assert augment.adapt(0.005, -1.0, images=5000).numpy() == 0
    assert augment.adapt(0.995, 1.0, images=5000).numpy() == 1


def test_adapt_in_a_graph():
    graph = tf.function(lambda p, sign, count: augment.adapt(p, sign, images=count))
    result = graph(tf.constant(0.5), tf.constant(0.9), tf.constant(1000, tf.int64))
    assert result.dtype == tf.float32
    assert result.numpy() == pytest.approx(0.502)
