"""GAN losses on scores [N, 1] (high: real), all as per-image values [N] whose mean is the loss.

Sources: Gulrajani et al. 2017 (WGAN-GP), Karras et al. 2018 (the drift term), Goodfellow et al. 2014 (non-saturating
logistic), Mescheder et al. 2018 (R1 and R2), Lim and Ye 2017 (hinge), Odena et al. 2017 (the auxiliary classifier).
"""

import tensorflow as tf

WGAN_GP_WEIGHT = 10.0
WGAN_DRIFT = 0.001


def _flat(scores):
    return tf.reshape(scores, [-1])


def wgan_generator(fake_scores):
    """-D(G(z, y), y). Also the generator's loss of the hinge family."""
    return -_flat(fake_scores)


def wgan_discriminator(real_scores, fake_scores, *, drift: float = WGAN_DRIFT):
    """D(G(z, y), y) - D(x, y) + drift·D(x, y)²; the gradient penalty is added by the caller."""
    real, fake = _flat(real_scores), _flat(fake_scores)
    return fake - real + drift * tf.square(real)


def logistic_generator(fake_scores):
    """Non-saturating: softplus(-D(G(z, y), y)) = -log sigmoid(D)."""
    return tf.math.softplus(-_flat(fake_scores))


def logistic_discriminator(real_scores, fake_scores):
    """softplus(D(fake)) + softplus(-D(real))."""
    return tf.math.softplus(_flat(fake_scores)) + tf.math.softplus(-_flat(real_scores))


def hinge_discriminator(real_scores, fake_scores):
    """max(0, 1 + D(fake)) + max(0, 1 - D(real))."""
    return tf.nn.relu(1 + _flat(fake_scores)) + tf.nn.relu(1 - _flat(real_scores))


def interpolate(reals, fakes, mix):
    """The points x̂ = x + (G - x)·u of the gradient penalty, u of shape [N, 1, 1, 1] in [0, 1)."""
    return reals + (fakes - reals) * mix


def _square_norms(score, images):
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(images)
        scores = tf.reduce_sum(score(images))
    gradients = tape.gradient(scores, images)
    return tf.reduce_sum(tf.square(gradients), axis=[1, 2, 3])


def gradient_penalty(score, images, *, weight: float = WGAN_GP_WEIGHT, scale: float = 1.0):
    """weight·(‖∇D(x̂, y)‖₂ - 1)² (Gulrajani 2017, equation 3), and the norms themselves; both [N].

    Call it inside a gradient tape: the gradient of the penalty is of second order.

    Args:
        score: function of images [N, R, R, 1] giving D's scores [N].
        images: x̂, float32.
        weight: of the penalty.
        scale: of the norms (see `prog.gradient_scale`).
    """
    # An exactly zero gradient (a dead network) must not give a NaN derivative of the root.
    norms = scale * tf.sqrt(tf.maximum(_square_norms(score, images), 1e-30))
    return weight * tf.square(norms - 1), norms


def zero_centred_penalty(score, images, *, gamma: float):
    """gamma/2·‖∇D(x, y)‖² (Mescheder 2018, equations 9 and 10: R1 on reals, R2 on fakes), and the norms; both [N].

    Arguments as `gradient_penalty`.
    """
    squares = _square_norms(score, images)
    return 0.5 * gamma * squares, tf.sqrt(squares)


def auxiliary_loss(logits, labels):
    """Softmax cross entropy of the logits [N, K] with y/Σy, of labels y [N, K] with at least one 1 per row; [N].

    The auxiliary classifier of an AC-GAN (Odena et al. 2017) for several labels at once: added, with weight 1, to the
    discriminator's loss for reals and fakes and to the generator's for fakes.
    """
    labels = tf.cast(labels, logits.dtype)
    return tf.nn.softmax_cross_entropy_with_logits(labels / tf.reduce_sum(labels, axis=1, keepdims=True), logits)
