"""What losses are made of, vectorised: discrepancies of two samples, entropy, cross entropies, DCAN's regulariser.

The regulariser: Li et al., "Domain Conditioned Adaptation Network", AAAI 2020, arXiv 2005.06717. The
maximum mean discrepancy and its multi-kernel, linear-time estimate: Gretton et al., "A Kernel Two-Sample Test",
JMLR 2012, section 6.
"""

import tensorflow as tf

from tfcxr import addons
from tfcxr.classifiers import choices

FEATURE_KERNELS = 5
PROBABILITY_KERNELS = 1
PROBABILITY_WIDTH = 1.68

# Keeps exp(-0 / width) finite where all rows are equal.
_MIN_WIDTH = 1e-12


def linear_mmd(
    source: tf.Tensor, target: tf.Tensor, *, num_kernels: int = FEATURE_KERNELS, width: float | None = None
) -> tf.Tensor:
    """Linear-time estimate of the squared maximum mean discrepancy; it may be negative.

    The mean over i of k(s_i, s_j) + k(t_i, t_j) - k(s_i, t_j) - k(s_j, t_i), j = i + 1 mod n, for the sum k of
    Gaussian kernels exp(-|a - b|^2 / w_m), w_m = w 2^m / 2^(num_kernels // 2).

    Args:
        source: float32 [n, d].
        target: float32 [n, d].
        num_kernels: number of kernels.
        width: w; None for the mean squared distance over ordered pairs of different rows of both sets. No gradient
            flows through it.

    Returns:
        float32 scalar.
    """
    if width is None:
        width = _mean_squared_distance(tf.concat([source, target], axis=0))
    next_source, next_target = tf.roll(source, -1, axis=0), tf.roll(target, -1, axis=0)

    def kernel(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        return _kernels(tf.reduce_sum(tf.square(a - b), axis=1), width, num_kernels)

    pairs = kernel(source, next_source) + kernel(target, next_target)
    return tf.reduce_mean(pairs - kernel(source, next_target) - kernel(next_source, target))


def quadratic_mmd(
    a: tf.Tensor, b: tf.Tensor, *, num_kernels: int = FEATURE_KERNELS, width: float | None = None
) -> tf.Tensor:
    """Squared maximum mean discrepancy of two samples, diagonals included: mean k(A,A) + mean k(B,B) - 2 mean k(A,B).

    Args:
        a: float32 [n, d].
        b: float32 [m, d]; n may differ from m.
        num_kernels: as for `linear_mmd`.
        width: as for `linear_mmd`.

    Returns:
        float32 scalar >= 0; 0 if a set is empty.
    """
    masks = tf.concat([tf.ones([1, tf.shape(a)[0]]), tf.zeros([1, tf.shape(b)[0]])], axis=1)
    return _masked_mmd(tf.concat([a, b], axis=0), masks, 1.0 - masks, num_kernels, width)[0]


# choices.MMDS
MMDS = {"linear": linear_mmd, "quadratic": quadratic_mmd}


def regulariser(
    features: tf.Tensor,
    corrected: tf.Tensor,
    labels: tf.Tensor,
    keep: tf.Tensor,
    *,
    num_kernels: int,
    width: float | None,
    form: str = "paper",
) -> tf.Tensor:
    """L_reg on one representation: each class's base rows against a random subset of the corrected rows.

    Args:
        features: float32 [n, d], of the source batch before the correction.
        corrected: float32 [n, d], the same images after it.
        labels: int [n], classes 0..K-1.
        keep: bool [K, n]; for each class the subset of the corrected rows.
        num_kernels: as for `linear_mmd`.
        width: as for `linear_mmd`.
        form: paper: the quadratic estimate. reference: as the reference implementation computes it: the subset of r
            images is the first r rows, a linear sum runs over the class's rows, is divided by the size of both sets,
            and addresses the subset's rows from the wrong offset. reference_index_fixed: the same with the offset put
            right.

    Returns:
        float32 scalar: the sum over classes, times 1/K. A class that is absent or has an empty subset contributes 0.
    """
    num_classes = keep.shape[0]
    members = tf.equal(tf.cast(labels, tf.int32)[tf.newaxis], tf.range(num_classes)[:, tf.newaxis])
    if form == "paper":
        zeros = tf.zeros_like(keep)
        of_class = tf.cast(tf.concat([members, zeros], axis=1), tf.float32)
        of_subset = tf.cast(tf.concat([zeros, keep], axis=1), tf.float32)
        rows = tf.concat([features, corrected], axis=0)
        return tf.reduce_sum(_masked_mmd(rows, of_class, of_subset, num_kernels, width)) / num_classes
    if form not in choices.REGULARISERS:
        raise ValueError(f"form={form!r}: must be one of {', '.join(choices.REGULARISERS)}")
    total = tf.constant(0.0)
    for k in range(num_classes):
        of_class = tf.boolean_mask(features, members[k])
        subset = corrected[: tf.reduce_sum(tf.cast(keep[k], tf.int32))]
        total += reference_set_mmd(
            of_class, subset, num_kernels=num_kernels, width=width, fix_index=form == "reference_index_fixed"
        )
    return total / num_classes


def reference_set_mmd(
    a: tf.Tensor, b: tf.Tensor, *, num_kernels: int, width: float | None = None, fix_index: bool = False
) -> tf.Tensor:
    """The reference's discrepancy of two sets of different size, kept for comparison only.

    Args:
        a: float32 [n, d].
        b: float32 [m, d].
        num_kernels: as for `linear_mmd`.
        width: as for `linear_mmd`.
        fix_index: take row i mod m of `b`, where the reference takes row m + i of `a` followed by `b`.

    Returns:
        float32 scalar; 0 if a set is empty.
    """
    n, m = tf.shape(a)[0], tf.shape(b)[0]
    rows = tf.concat([a, b], axis=0)
    if width is None:
        width = _mean_squared_distance(rows)
    i = tf.range(n)
    j = tf.math.floormod(i + 1, tf.maximum(n, 1))
    if fix_index:
        second_i, second_j = (n + tf.math.floormod(r, tf.maximum(m, 1)) for r in (i, i + 1))
    else:
        second_i, second_j = m + i, m + j

    def kernel(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        difference = tf.gather(rows, first) - tf.gather(rows, second)
        return _kernels(tf.reduce_sum(tf.square(difference), axis=1), width, num_kernels)

    def value() -> tf.Tensor:
        pairs = kernel(i, j) + kernel(second_i, second_j) - kernel(i, second_j) - kernel(j, second_i)
        return tf.reduce_sum(pairs) / tf.cast(n + m, tf.float32)

    return tf.cond(tf.logical_and(n > 0, m > 0), value, lambda: tf.constant(0.0))


def entropy(probabilities: tf.Tensor) -> tf.Tensor:
    """Mean entropy in nats; 0 log 0 = 0, with zero gradient.

    Args:
        probabilities: float32 [n, K], rows sum to 1.

    Returns:
        float32 scalar in [0, log K].
    """
    return tf.reduce_mean(entropies(probabilities))


def entropies(probabilities: tf.Tensor) -> tf.Tensor:
    """Entropy of each row of float32 [n, K], in nats: [n]."""
    positive = probabilities > 0
    # The inner `where` keeps the gradient of log finite in the branch that the outer one drops.
    logarithms = tf.math.log(tf.where(positive, probabilities, 1.0))
    return -tf.reduce_sum(tf.where(positive, probabilities * logarithms, 0.0), axis=1)


def certainty_weights(probabilities: tf.Tensor) -> tf.Tensor:
    """1 + exp(-entropy) of each row of float32 [n, K], scaled to a mean of 1, without gradient: [n].

    The weights of CDAN+E (Long et al. 2018, arXiv 1705.10667) and MCC (Jin et al. 2020, arXiv 1912.03699).
    """
    weights = 1.0 + tf.exp(-entropies(probabilities))
    return tf.stop_gradient(weights / tf.reduce_mean(weights))


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, class_weights: tf.Tensor | None = None) -> tf.Tensor:
    """Mean cross entropy of softmax(logits).

    Args:
        logits: float32 [n, K].
        labels: int [n].
        class_weights: float32 [K], a factor for the images of each class; None for 1.

    Returns:
        float32 scalar.
    """
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if class_weights is not None:
        each *= tf.gather(class_weights, labels)
    return tf.reduce_mean(each)


def label_cross_entropy(logits: tf.Tensor, members: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Mean binary cross entropy of sigmoid(logits), over images and labels.

    Args:
        logits: float32 [n, K].
        members: which labels an image has, float32 [n, K] in {0, 1}.
        weights: float32 [2, K], a factor for images without (row 0) and with (row 1) each label; None for 1.

    Returns:
        float32 scalar.
    """
    each = tf.nn.sigmoid_cross_entropy_with_logits(members, logits)
    return tf.reduce_mean(each if weights is None else each * value_weights(members, weights))


def label_focal_loss(logits: tf.Tensor, members: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Mean focal loss of sigmoid(logits), over images and labels (Lin et al., ICCV 2017, equation 5), with gamma 2.

    Arguments and result as of `label_cross_entropy`; without weights, the paper's alpha stands in for them: 0.25 for
    images with a label, 0.75 for those without.
    """
    each = addons.focal_loss(members, logits, alpha=0.25 if weights is None else None)
    return tf.reduce_mean(each if weights is None else each * value_weights(members, weights))


def value_weights(members: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Of weights [2, K] the one that each label's value has: [n, K]; arguments as of `label_cross_entropy`."""
    return members * weights[1] + (1.0 - members) * weights[0]


def _mean_squared_distance(rows: tf.Tensor) -> tf.Tensor:
    """Mean of |x_i - x_j|^2 over ordered pairs i != j, without gradient.

    The sum over all pairs is 2 m sum |x - mean|^2: linear in the number of rows.
    """
    count = tf.cast(tf.shape(rows)[0], tf.float32)
    spread = tf.reduce_sum(tf.square(rows - tf.reduce_mean(rows, axis=0, keepdims=True)))
    return tf.stop_gradient(2.0 * spread / tf.maximum(count - 1.0, 1.0))


def _kernels(squared_distances: tf.Tensor, width: tf.Tensor | float, num_kernels: int) -> tf.Tensor:
    """Sum of `num_kernels` Gaussian kernels of the squared distances; `width` broadcasts against them."""
    width = tf.maximum(tf.convert_to_tensor(width, tf.float32), _MIN_WIDTH)
    widths = [width * 2.0 ** (m - num_kernels // 2) for m in range(num_kernels)]
    return tf.add_n([tf.exp(-squared_distances / w) for w in widths])


def _masked_mmd(
    rows: tf.Tensor, first: tf.Tensor, second: tf.Tensor, num_kernels: int, width: float | None
) -> tf.Tensor:
    """Quadratic discrepancy for several pairs of subsets of the same rows at once.

    Args:
        rows: float32 [m, d].
        first: float32 [K, m], 1 for the rows of the first set of pair k.
        second: float32 [K, m].
        num_kernels: as for `linear_mmd`.
        width: as for `linear_mmd`; None: over the rows of both sets of a pair.

    Returns:
        float32 [K]; 0 where a set is empty.
    """
    centred = rows - tf.reduce_mean(rows, axis=0, keepdims=True)  # keeps digits in the Gram form below
    squares = tf.reduce_sum(tf.square(centred), axis=1)
    distances = squares[:, tf.newaxis] + squares - 2.0 * tf.matmul(centred, centred, transpose_b=True)
    # Rounding leaves the diagonal, which is 0, a little off.
    distances = tf.maximum(tf.linalg.set_diag(distances, tf.zeros_like(squares)), 0.0)
    if width is None:
        either = first + second
        count = tf.reduce_sum(either, axis=1)
        total = tf.einsum("ki,ij,kj->k", either, distances, either)
        pair_widths = tf.stop_gradient(total / tf.maximum(count * (count - 1.0), 1.0))
    else:
        pair_widths = tf.fill([tf.shape(first)[0]], width)
    kernels = _kernels(distances[tf.newaxis], pair_widths[:, tf.newaxis, tf.newaxis], num_kernels)

    def mean(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        pairs = tf.reduce_sum(a, axis=1) * tf.reduce_sum(b, axis=1)
        return tf.einsum("ki,kij,kj->k", a, kernels, b) / tf.maximum(pairs, 1.0)

    discrepancy = mean(first, first) + mean(second, second) - 2.0 * mean(first, second)
    both = tf.reduce_any(first > 0, axis=1) & tf.reduce_any(second > 0, axis=1)
    return tf.where(both, discrepancy, 0.0)
